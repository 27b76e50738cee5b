// Which fault this rank does, and where in its life.
//
// The folder of the data holds what a cell of the fault matrix says to its ranks:
//   fault   "KIND PLACE RANK STEP": done once, by that rank, at the first such place of a step
//   after
//           STEP; may be written and changed at any time
//   pace    milliseconds that every step takes longer
// and the ranks leave there:
//   fault.done   once the fault is due, before it is done: the times of the monotonic and of the
//                system's clock in seconds, the last step done, the generation, the process, the
//                host's address
//   pid.RANK     the rank's process
//   ledger       a line for every step a rank has done: rank, generation, step, monotonic time
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "lasp/internal/v1/rank_channel.pb.h"

namespace lasp::worker {

enum class FaultPlace : uint8_t {
  kStartUp,  // the peers know this rank's address and connect to it
  kRestore,  // it has read its share, and gives it to the others
  kForward,
  kBackward,
  kGradientSync,
  kCheckpointWrite,  // on the writer's thread: the folder is made, the shard is not there yet
};

// Thread-safe.
class FaultPlan {
 public:
  explicit FaultPlan(const lasp::internal::v1::Setup& setup);

  // Dies, stops or takes all memory where that is due here; returns otherwise.
  void Reach(FaultPlace place);

  // Whether this rank is to hang here, or to make a number NaN: true at most once.
  bool HangsAt(FaultPlace place) { return Claims("hang", place); }

  bool SpoilsAt(FaultPlace place) { return Claims("nan", place); }

  // The training thread has done another step.
  void StepDone();

 private:
  bool Claims(absl::string_view kind, FaultPlace place);

  const std::string folder_;
  const int rank_;
  const int64_t generation_;
  const std::string address_;
  const absl::Duration pace_;
  std::atomic<int64_t> step_;
};

// As a receive that never ends does.
[[noreturn]] void HangForever();

}  // namespace lasp::worker
