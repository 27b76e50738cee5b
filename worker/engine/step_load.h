// How long this rank itself computes in a step: what a straggler shows in, since everybody waits
// for it and all steps take equally long.
#pragma once

#include <array>
#include <cstddef>
#include <numeric>

#include "proto/rpc/mutex.h"

namespace lasp::worker {

// Thread-safe.
class StepLoad {
 public:
  static constexpr size_t kWindow = 50;

  // Without waits for other ranks.
  void Add(double seconds) {
    MutexLock lock(&mutex_);
    seconds_[count_ % kWindow] = seconds;
    ++count_;
  }

  // The mean of the last kWindow steps; 0 before there have been as many.
  double mean() const {
    MutexLock lock(&mutex_);
    return count_ < kWindow
               ? 0
               : std::accumulate(seconds_.begin(), seconds_.end(), 0.0) / double{kWindow};
  }

 private:
  mutable Mutex mutex_;
  std::array<double, kWindow> seconds_ GUARDED_BY(mutex_) = {};
  size_t count_ GUARDED_BY(mutex_) = 0;
};

}  // namespace lasp::worker
