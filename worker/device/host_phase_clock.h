// The phases of a device that has done what was issued to it by the time the call returns.
#pragma once

#include <utility>

#include "absl/time/time.h"
#include "proto/rpc/clock.h"
#include "worker/device/phase.h"

namespace lasp::worker {

// Not thread-safe.
class HostPhaseClock {
 public:
  // Returns the phase before.
  Phase Enter(Phase phase) {
    const absl::Duration now = SystemClock().Monotonic();
    seconds_[phase_] += absl::ToDoubleSeconds(now - entered_);
    entered_ = now;
    return std::exchange(phase_, phase);
  }

  // Since the last call.
  PhaseSeconds Take() {
    Enter(phase_);
    return std::exchange(seconds_, {});
  }

 private:
  Phase phase_ = Phase::kOther;
  absl::Duration entered_ = SystemClock().Monotonic();
  PhaseSeconds seconds_;
};

}  // namespace lasp::worker
