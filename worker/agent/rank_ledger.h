// Which rank processes this agent has started, on disk, so that the next incarnation can end what
// an earlier one left behind.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace lasp::worker {

// When a process started, in clock ticks since the boot. With the pid and the boot it names one
// process for good. NOT_FOUND where there is none; a zombie counts as none.
absl::StatusOr<uint64_t> ProcessStartTicks(pid_t pid);

// One file a process, in a folder of its own. Not thread-safe.
class RankLedger {
 public:
  // `folder` exists.
  explicit RankLedger(std::string folder) : folder_(std::move(folder)) {}

  absl::Status Record(pid_t pid) const;
  void Erase(pid_t pid) const;

  // Kills every recorded process that still runs, with its group, and waits until they are gone.
  // Gives how many there were; DEADLINE_EXCEEDED naming one that does not die.
  absl::StatusOr<int> KillLeftovers(absl::Duration timeout) const;

 private:
  const std::string folder_;
};

}  // namespace lasp::worker
