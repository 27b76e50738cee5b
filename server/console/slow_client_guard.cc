#include "server/console/slow_client_guard.h"

#include <sys/socket.h>

#include <algorithm>
#include <utility>

namespace lasp::server {
namespace {

constexpr absl::Duration kTick = absl::Seconds(1);

}  // namespace

SlowClientGuard::SlowClientGuard(const Clock* clock, absl::Duration limit,
                                 std::function<void()> on_drop)
    : clock_(clock), limit_(limit), on_drop_(std::move(on_drop)), thread_([this] { Watch(); }) {}

SlowClientGuard::~SlowClientGuard() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    stop_.NotifyAll();
  }
  thread_.join();
}

void SlowClientGuard::Opened(int fd) {
  MutexLock lock(&mutex_);
  since_[fd] = clock_->Monotonic();
}

void SlowClientGuard::Answered(int fd) {
  MutexLock lock(&mutex_);
  const auto found = since_.find(fd);
  if (found != since_.end() && found->second != absl::InfiniteDuration()) {
    found->second = clock_->Monotonic();
  }
}

void SlowClientGuard::Closed(int fd) {
  MutexLock lock(&mutex_);
  since_.erase(fd);
}

size_t SlowClientGuard::connections() const {
  MutexLock lock(&mutex_);
  return since_.size();
}

void SlowClientGuard::Watch() {
  MutexLock lock(&mutex_);
  while (!stopping_) {
    const absl::Duration now = clock_->Monotonic();
    for (auto& [fd, since] : since_) {
      if (now - since >= limit_) {
        // Under the lock, so that the descriptor is still this connection's. The library sees the
        // end and closes it.
        shutdown(fd, SHUT_RDWR);
        since = absl::InfiniteDuration();
        on_drop_();
      }
    }
    stop_.WaitWithTimeout(&mutex_, std::min(kTick, limit_));
  }
}

}  // namespace lasp::server
