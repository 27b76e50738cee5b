#include "worker/parallel/closed_peers.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "proto/rpc/clock.h"

namespace lasp::worker {
namespace {

// Between looks at the waits for peers that are closed.
constexpr absl::Duration kInterval = absl::Milliseconds(250);

}  // namespace

absl::StatusOr<std::unique_ptr<ClosedPeers>> ClosedPeers::Watch(
    const std::vector<UniqueFd>& sockets, absl::Duration grace) {
  auto peers = std::unique_ptr<ClosedPeers>(new ClosedPeers(grace));
  for (const UniqueFd& socket : sockets) {
    UniqueFd own;
    if (socket.valid()) {
      own = UniqueFd(fcntl(socket.get(), F_DUPFD_CLOEXEC, 0));
      if (!own.valid()) {
        return absl::UnavailableError(absl::ErrnoToStatus(errno, "duplicating a socket").message());
      }
    }
    peers->sockets_.push_back(std::move(own));
  }
  peers->stop_ = UniqueFd(eventfd(0, EFD_CLOEXEC));
  if (!peers->stop_.valid()) {
    return absl::UnavailableError(absl::ErrnoToStatus(errno, "making an eventfd").message());
  }
  {
    MutexLock lock(&peers->mutex_);
    peers->closed_.assign(sockets.size(), absl::InfiniteDuration());
  }
  peers->thread_ = std::thread([raw = peers.get()] { raw->Run(); });
  return peers;
}

ClosedPeers::~ClosedPeers() {
  if (thread_.joinable()) {
    (void)eventfd_write(stop_.get(), 1);
    thread_.join();
  }
}

void ClosedPeers::Run() {
  while (AwaitChange()) {
    EndWaits();
  }
}

bool ClosedPeers::AwaitChange() {
  std::vector<pollfd> polled = {{.fd = stop_.get(), .events = POLLIN, .revents = 0}};
  std::vector<size_t> ranks = {0};
  bool some_closed = false;
  for (size_t rank = 0; rank < sockets_.size(); ++rank) {
    if (sockets_[rank].valid()) {
      polled.push_back({.fd = sockets_[rank].get(), .events = POLLRDHUP, .revents = 0});
      ranks.push_back(rank);
    }
  }
  {
    MutexLock lock(&mutex_);
    some_closed = std::any_of(closed_.begin(), closed_.end(),
                              [](absl::Duration time) { return time < absl::InfiniteDuration(); });
  }
  const int timeout = some_closed ? static_cast<int>(absl::ToInt64Milliseconds(kInterval)) : -1;
  if (poll(polled.data(), polled.size(), timeout) < 0 && errno != EINTR) {
    return false;
  }
  if (polled[0].revents != 0) {
    return false;
  }
  const absl::Duration now = SystemClock().Monotonic();
  MutexLock lock(&mutex_);
  for (size_t i = 1; i < polled.size(); ++i) {
    if ((polled[i].revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)) != 0) {
      closed_[ranks[i]] = now;
      // The peer, if it lives, should see this end close with Gloo's.
      sockets_[ranks[i]] = UniqueFd();
    }
  }
  return true;
}

void ClosedPeers::EndWaits() {
  const absl::Duration now = SystemClock().Monotonic();
  MutexLock lock(&mutex_);
  for (Waiting& wait : waiting_) {
    const absl::Duration closed = closed_[static_cast<size_t>(wait.peer)];
    if (!wait.ended && closed < absl::InfiniteDuration() &&
        now - std::max(closed, wait.since) >= grace_) {
      wait.ended = true;
      wait.end();
    }
  }
}

ClosedPeers::Wait::Wait(ClosedPeers* peers, int peer, std::function<void()> end) : peers_(*peers) {
  MutexLock lock(&peers_.mutex_);
  place_ = peers_.waiting_.insert(
      peers_.waiting_.end(),
      {.peer = peer, .end = std::move(end), .since = SystemClock().Monotonic(), .ended = false});
}

ClosedPeers::Wait::~Wait() {
  MutexLock lock(&peers_.mutex_);
  peers_.waiting_.erase(place_);
}

bool ClosedPeers::Wait::ended() const {
  MutexLock lock(&peers_.mutex_);
  return place_->ended;
}

}  // namespace lasp::worker
