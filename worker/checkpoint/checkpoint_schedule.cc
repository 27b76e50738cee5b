#include "worker/checkpoint/checkpoint_schedule.h"

namespace lasp::worker {
namespace {

absl::Duration IntervalOf(const lasp::v1::CheckpointSpec& spec) {
  if (spec.has_interval()) {
    return absl::Seconds(spec.interval().seconds()) + absl::Nanoseconds(spec.interval().nanos());
  }
  return absl::InfiniteDuration();
}

}  // namespace

CheckpointSchedule::CheckpointSchedule(const lasp::v1::CheckpointSpec& spec, const Clock* clock)
    : interval_steps_(spec.interval_steps()),
      interval_(IntervalOf(spec)),
      clock_(*clock),
      last_(clock_.Monotonic()) {}

bool CheckpointSchedule::IsDue(int64_t step) const {
  return (interval_steps_ > 0 && step % interval_steps_ == 0) ||
         clock_.Monotonic() - last_ >= interval_;
}

void CheckpointSchedule::Begun() { last_ = clock_.Monotonic(); }

}  // namespace lasp::worker
