// Ends connections whose client takes too long over one request.
#pragma once

#include <functional>
#include <map>
#include <thread>

#include "absl/time/time.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/mutex.h"

namespace lasp::server {

// The HTTP library ends a connection that is idle, but not one that sends or takes a byte now and
// then. Here every connection has `limit` from its start, or from its last answer, to the end of
// the next one. Thread-safe.
class SlowClientGuard {
 public:
  // `on_drop` is called for each connection that is ended, from the own thread.
  SlowClientGuard(const Clock* clock, absl::Duration limit, std::function<void()> on_drop);
  ~SlowClientGuard();
  SlowClientGuard(const SlowClientGuard&) = delete;
  SlowClientGuard& operator=(const SlowClientGuard&) = delete;

  // A connection on this socket has begun; it is Closed before the descriptor is.
  void Opened(int fd);
  // An answer has been sent whole.
  void Answered(int fd);
  void Closed(int fd);

  size_t connections() const;

 private:
  void Watch();

  const Clock* const clock_;
  const absl::Duration limit_;
  const std::function<void()> on_drop_;
  mutable Mutex mutex_;
  CondVar stop_;
  bool stopping_ GUARDED_BY(mutex_) = false;
  // When what each socket is at began; in the infinite future for one that has been ended.
  std::map<int, absl::Duration> since_ GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace lasp::server
