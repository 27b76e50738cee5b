// The one door to the time, so that tests can turn the hands.
#pragma once

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace lasp {

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  // The wall clock, for records.
  virtual absl::Time Now() const = 0;
  // A monotonic clock, for intervals and deadlines: never jumps.
  virtual absl::Duration Monotonic() const = 0;
};

// The machine's clocks.
const Clock& SystemClock();

}  // namespace lasp
