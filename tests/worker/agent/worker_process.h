// lasp-worker as a process of a test.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/time/time.h"

namespace lasp::worker::testing {

class WorkerProcess {
 public:
  // `arguments` without the program.
  explicit WorkerProcess(const std::vector<std::string>& arguments);
  // Kills it where it still runs.
  ~WorkerProcess();
  WorkerProcess(const WorkerProcess&) = delete;
  WorkerProcess& operator=(const WorkerProcess&) = delete;

  // The first line on stdout; empty where it ended before.
  std::string ReadServingLine();
  void Signal(int signal_number) const;
  // The exit code, 128 + n for signal n; -1 where it still runs after `timeout`.
  int Wait(absl::Duration timeout);
  std::string ReadStderr() const;

  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
  int stdout_ = -1;
  std::string stderr_path_;
  int exit_code_ = -1;
};

// Live ranks, whoever their parent is, whose program was started under this name, of 15 characters
// at most. (Nothing else of a rank can be seen from outside.)
std::vector<pid_t> RanksNamed(const std::string& name);
// Waits until there are `count`; false when the time ran out.
bool WaitForRanks(const std::string& name, size_t count, absl::Duration timeout);

}  // namespace lasp::worker::testing
