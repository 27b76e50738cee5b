// A mutex and a condition variable that both clang's thread-safety analysis and ThreadSanitizer
// understand. (Debian's Abseil is built without sanitizer hooks, so its Mutex is invisible to
// ThreadSanitizer.)
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>

#include "absl/time/time.h"
#include "proto/rpc/thread_annotations.h"

namespace lasp {

class LASP_CAPABILITY("mutex") Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() ACQUIRE_LOCK() { mutex_.lock(); }

  void Unlock() RELEASE_LOCK() { mutex_.unlock(); }

 private:
  friend class CondVar;
  std::mutex mutex_;
};

class LASP_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex* mutex) ACQUIRE_LOCK(mutex) : mutex_(mutex) { mutex_->Lock(); }

  ~MutexLock() RELEASE_LOCK() { mutex_->Unlock(); }

  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex* const mutex_;
};

// Waits may return early without a notification: call them in a loop over the condition.
class CondVar {
 public:
  CondVar() = default;
  CondVar(const CondVar&) = delete;
  CondVar& operator=(const CondVar&) = delete;

  void Wait(Mutex* mutex) REQUIRES_LOCK(mutex) {
    std::unique_lock<std::mutex> lock(mutex->mutex_, std::adopt_lock);
    condition_.wait(lock);
    lock.release();
  }

  // Waits at most `timeout` of the monotonic clock. Returns true when the time ran out.
  bool WaitWithTimeout(Mutex* mutex, absl::Duration timeout) REQUIRES_LOCK(mutex) {
    std::unique_lock<std::mutex> lock(mutex->mutex_, std::adopt_lock);
    // wait_until on the steady clock calls pthread_cond_clockwait, which gcc 12's ThreadSanitizer
    // intercepts; a year is as good as for ever and does not overflow.
    const auto deadline = std::chrono::steady_clock::now() +
                          absl::ToChronoNanoseconds(std::min(timeout, absl::Hours(24 * 365)));
    const bool timed_out = condition_.wait_until(lock, deadline) == std::cv_status::timeout;
    lock.release();
    return timed_out;
  }

  void Notify() { condition_.notify_one(); }

  void NotifyAll() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace lasp
