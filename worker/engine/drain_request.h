// Whether this rank has been asked to finish its step and leave.
#pragma once

#include <atomic>

namespace lasp::worker {

// Set by a message or a signal handler, read by the training thread. Thread-safe, and
// async-signal-safe.
class DrainRequest {
 public:
  void Request() { requested_.store(true, std::memory_order_relaxed); }

  bool requested() const { return requested_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> requested_{false};
  static_assert(std::atomic<bool>::is_always_lock_free);
};

}  // namespace lasp::worker
