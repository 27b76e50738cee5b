// Users in numbers: closed loops of submits, watches, and followers of logs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace lasp::bench {

struct SubmitResult {
  // Of each acknowledged submit, sorted.
  std::vector<double> milliseconds;
  // Names of what was acknowledged.
  std::vector<std::string> names;
  int64_t errors = 0;
  double seconds = 0;

  double PerSecond() const { return static_cast<double>(milliseconds.size()) / seconds; }

  // 0 to 1.
  double Quantile(double q) const;
};

struct SubmitLoad {
  int submitters = 20;
  // Each job has one rank and a number of steps between these, evenly spread.
  int64_t min_steps = 3;
  int64_t max_steps = 60;
  absl::Duration duration = absl::Seconds(10);
  // Ends after this many jobs even if there is time left.
  int64_t max_jobs = 1'000'000'000;
  // The server will be killed: an error ends its thread silently.
  bool ignore_errors = false;
};

// `submitters` threads, each with its own connection, submit one job after another.
SubmitResult Submit(const std::string& api_address, const SubmitLoad& load);

// Open streams that count what they receive.
class Streams {
 public:
  virtual ~Streams() = default;
  virtual int64_t received() const = 0;
  // Streams that are still open.
  virtual int open() const = 0;
};

// Of `count` watches the first `whole` see every job; each other one waits for one job of `names`.
std::unique_ptr<Streams> Watch(const std::string& api_address, int count, int whole,
                               const std::vector<std::string>& names);

// Follows the logs of `names`, from its first line.
std::unique_ptr<Streams> FollowLogs(const std::string& api_address,
                                    const std::vector<std::string>& names);

// The names of all jobs of the store.
std::vector<std::string> ListAll(const std::string& api_address);

}  // namespace lasp::bench
