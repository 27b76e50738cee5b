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

// `submitters` threads, each with its own connection, submit jobs of one rank with `max_steps`, one
// after another, for `duration`. Errors after `ignore_errors` (a server killed on purpose) end a
// thread silently.
SubmitResult Submit(const std::string& api_address, int submitters, int64_t max_steps,
                    absl::Duration duration, bool ignore_errors = false);

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
