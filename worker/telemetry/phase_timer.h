// Where a step's time goes.
#pragma once

#include "absl/time/time.h"
#include "proto/rpc/clock.h"

namespace lasp::worker {

// Seconds of one step, by phase. Forward and backward include waiting for SP states, the optimizer
// includes waiting for the gradient reduction.
struct StepTimes {
  double step = 0;
  double data = 0;
  double forward = 0;
  double backward = 0;
  double optimizer = 0;
};

// Adds the time from its making to its end to a total.
class PhaseTimer {
 public:
  explicit PhaseTimer(double* total_seconds)
      : total_seconds_(total_seconds), begin_(SystemClock().Monotonic()) {}

  ~PhaseTimer() { *total_seconds_ += absl::ToDoubleSeconds(SystemClock().Monotonic() - begin_); }

  PhaseTimer(const PhaseTimer&) = delete;
  PhaseTimer& operator=(const PhaseTimer&) = delete;

 private:
  double* const total_seconds_;
  const absl::Duration begin_;
};

}  // namespace lasp::worker
