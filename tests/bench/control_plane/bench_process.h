// The benchmark's other processes: this program again, with another role.
#pragma once

#include <sys/types.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace lasp::bench {

// Killed at destruction if it still runs.
class BenchProcess {
 public:
  // Runs /proc/self/exe with `arguments`; its stdout goes to a file in `folder`.
  BenchProcess(const std::vector<std::string>& arguments, const std::string& folder,
               const std::string& name);
  ~BenchProcess();
  BenchProcess(const BenchProcess&) = delete;
  BenchProcess& operator=(const BenchProcess&) = delete;

  // The line with this number (from 0) that it prints, as JSON; ends this program when it does not
  // come in time.
  nlohmann::json AwaitLine(size_t number, absl::Duration timeout) const;

  // Sends the signal and waits for the end.
  void End(int signal_number);

  // From /proc: memory in MiB, now and at the highest, and processor seconds.
  double ResidentMib() const { return StatusMib("VmRSS:"); }

  double PeakResidentMib() const { return StatusMib("VmHWM:"); }

  double CpuSeconds() const;

 private:
  double StatusMib(const std::string& key) const;

  const std::string output_;
  pid_t pid_ = -1;
};

// Ends the program with a message.
[[noreturn]] void Die(const std::string& message);

}  // namespace lasp::bench
