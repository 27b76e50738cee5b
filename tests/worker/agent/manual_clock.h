// A clock whose hands a test turns.
#pragma once

#include "proto/rpc/clock.h"
#include "proto/rpc/mutex.h"

namespace lasp::worker::testing {

// Thread-safe.
class ManualClock : public Clock {
 public:
  absl::Time Now() const override { return absl::UnixEpoch() + Monotonic(); }

  absl::Duration Monotonic() const override {
    MutexLock lock(&mutex_);
    return now_;
  }

  void Advance(absl::Duration by) {
    MutexLock lock(&mutex_);
    now_ += by;
  }

 private:
  mutable Mutex mutex_;
  absl::Duration now_ GUARDED_BY(mutex_) = absl::Hours(1);
};

}  // namespace lasp::worker::testing
