// When a checkpoint is due.
#pragma once

#include <cstdint>

#include "absl/time/time.h"
#include "lasp/v1/training_spec.pb.h"
#include "proto/rpc/clock.h"

namespace lasp::worker {

// Rank 0's alone: clocks differ. Not thread-safe.
class CheckpointSchedule {
 public:
  // `spec` with its defaults written out. The time counts from now. `clock` must outlive this.
  CheckpointSchedule(const lasp::v1::CheckpointSpec& spec, const Clock* clock);

  // After `step`. By the clock it stays due until one has begun.
  bool IsDue(int64_t step) const;
  void Begun();

 private:
  const int64_t interval_steps_;
  const absl::Duration interval_;
  const Clock& clock_;
  absl::Duration last_;
};

}  // namespace lasp::worker
