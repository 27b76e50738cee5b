#include "worker/agent/supervisor.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/log.h"
#include "proto/rpc/proto_time.h"
#include "proto/rpc/rank_exit_code.h"
#include "proto/rpc/status_macros.h"
#include "worker/agent/rank_environment.h"
#include "worker/agent/rank_exit.h"

namespace lasp::worker {
namespace {

constexpr absl::Duration kDefaultGrace = absl::Seconds(30);
constexpr absl::Duration kDestructionTime = absl::Seconds(5);
constexpr uint64_t kWakeKey = ~uint64_t{0};

absl::Duration Now() { return SystemClock().Monotonic(); }

}  // namespace

Supervisor::Supervisor(SupervisorOptions options, const RankLedger* ledger, RankLogs* logs,
                       RankObserver* observer)
    : options_(std::move(options)),
      ledger_(ledger),
      logs_(logs),
      observer_(observer),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      left_states_(options_.memory_root) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kWakeKey;
  epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event);
  thread_ = std::thread([this] { Run(); });
}

Supervisor::~Supervisor() {
  KillAll("the agent ends");
  if (!WaitUntilEmpty(kDestructionTime)) {
    LASP_LOG(kError, "ranks are left that do not die");
  }
  Post([this] { stopping_ = true; });
  thread_.join();
}

// ---- called by other threads --------------------------------------------------------------------

void Supervisor::Post(std::function<void()> command) {
  {
    MutexLock lock(&mutex_);
    commands_.push_back(std::move(command));
  }
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_.get(), &one, sizeof(one));
}

void Supervisor::Launch(const lasp::v1::Assignment& assignment) {
  Post([this, assignment] { DoLaunch(assignment); });
}

void Supervisor::SetPeers(const lasp::v1::PeerAddresses& peers) {
  Post([this, peers] {
    if (Rank* const rank = Find(peers.fence())) {
      lasp::internal::v1::ToRank message;
      *message.mutable_peer_addresses() = peers;
      SendTo(rank, message);
    }
  });
}

void Supervisor::Train(const lasp::v1::Start& start) {
  Post([this, start] {
    if (Rank* const rank = Find(start.fence())) {
      lasp::internal::v1::ToRank message;
      *message.mutable_start() = start;
      SendTo(rank, message);
    }
  });
}

void Supervisor::Stop(const lasp::v1::Stop& stop) {
  Post([this, stop] {
    const lasp::v1::Fence& fence = stop.fence();
    if (const int slot = FindWaiting(fence); slot >= 0) {
      TakeWaiting(slot);
      Tell(DescribeRefusal(
          fence, slot, kRankDrained,
          absl::CancelledError(absl::StrCat("stopped before its start: ", stop.reason()))));
    } else if (Rank* const rank = Find(fence)) {
      const absl::Duration grace =
          stop.has_grace_period() ? FromProtoDuration(stop.grace_period()) : kDefaultGrace;
      if (stop.mode() == lasp::v1::Stop::MODE_DRAIN) {
        DrainRank(rank, grace, stop.reason());
      } else if (stop.mode() == lasp::v1::Stop::MODE_LEAVE_STATE) {
        LeaveRank(rank, grace, stop.reason(), stop.dump());
      } else if (stop.dump()) {
        DumpRank(rank, stop.reason());
      } else {
        KillRank(rank, stop.reason());
      }
    } else if (const lasp::v1::RankExited* const ended = FindEnded(fence)) {
      observer_->OnEnded(*ended);
    } else {
      // Not remembered: an assignment of it may still come.
      observer_->OnEnded(
          DescribeRefusal(fence, -1, kRankRetry, absl::NotFoundError("no such rank here")));
    }
  });
}

void Supervisor::DrainAll(absl::Duration grace) {
  Post([this, grace] {
    for (const auto& [slot, assignment] : TakeAllWaiting()) {
      Tell(DescribeRefusal(assignment.fence(), slot, kRankDrained,
                           absl::CancelledError("the worker drains")));
    }
    for (const auto& [slot, rank] : ranks_) {
      DrainRank(rank.get(), grace, "the worker drains");
    }
  });
}

void Supervisor::KillAll(const std::string& reason) {
  Post([this, reason] {
    for (const auto& [slot, assignment] : TakeAllWaiting()) {
      Tell(DescribeRefusal(assignment.fence(), slot, kRankRetry, absl::CancelledError(reason)));
    }
    for (const auto& [slot, rank] : ranks_) {
      KillRank(rank.get(), reason);
    }
  });
}

std::vector<LiveRank> Supervisor::Ranks() const {
  MutexLock lock(&mutex_);
  std::vector<LiveRank> ranks;
  ranks.reserve(views_.size() + waiting_.size());
  for (const auto& [slot, view] : views_) {
    ranks.push_back(view);
  }
  for (const auto& [slot, assignment] : waiting_) {
    LiveRank& rank = ranks.emplace_back();
    *rank.status.mutable_fence() = assignment.fence();
    rank.status.set_slot(slot);
    rank.status.set_phase(lasp::v1::RankStatus::PHASE_STARTING);
  }
  return ranks;
}

bool Supervisor::WaitUntilSettled(absl::Duration timeout) const {
  const absl::Duration deadline = Now() + timeout;
  MutexLock lock(&mutex_);
  while (!commands_.empty()) {
    const absl::Duration left = deadline - Now();
    if (left <= absl::ZeroDuration()) {
      return false;
    }
    changed_.WaitWithTimeout(&mutex_, left);
  }
  return true;
}

bool Supervisor::WaitUntilEmpty(absl::Duration timeout) const {
  const absl::Duration deadline = Now() + timeout;
  MutexLock lock(&mutex_);
  while (!views_.empty() || !commands_.empty()) {
    const absl::Duration left = deadline - Now();
    if (left <= absl::ZeroDuration()) {
      return false;
    }
    changed_.WaitWithTimeout(&mutex_, left);
  }
  return true;
}

// ---- the thread ---------------------------------------------------------------------------------

void Supervisor::Run() {
  std::array<epoll_event, 64> events{};
  while (!stopping_) {
    const absl::Duration wait = NextDeadline() - Now();
    const int timeout_ms = wait == absl::InfiniteDuration()
                               ? -1
                               : static_cast<int>(absl::ToInt64Milliseconds(
                                     std::clamp(wait, absl::ZeroDuration(), absl::Hours(1)))) +
                                     1;
    const int count = epoll_wait(epoll_.get(), events.data(), events.size(), timeout_ms);
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<size_t>(i)];
      HandleEvent(event.data.u64, event.events);
    }
    KillOverdue();
  }
}

void Supervisor::HandleEvent(uint64_t key, uint32_t events) {
  if (key == kWakeKey) {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t bytes = read(wake_.get(), &count, sizeof(count));
    RunCommands();
    return;
  }
  const int slot = static_cast<int>(key / kKinds);
  const auto found = ranks_.find(slot);
  if (found == ranks_.end()) {
    return;  // reaped by an earlier event of the same round
  }
  if (key % kKinds == kExit) {
    Reap(slot);
    return;
  }
  Rank* const rank = found->second.get();
  if ((events & EPOLLOUT) != 0) {
    rank->link->Flush();
    Watch(rank->link->descriptor(), slot, kChannel,
          rank->link->wants_write() ? EPOLLIN | EPOLLOUT : EPOLLIN, true);
  }
  if ((events & ~static_cast<uint32_t>(EPOLLOUT)) != 0) {
    Receive(rank);
  }
}

void Supervisor::RunCommands() {
  for (;;) {
    std::function<void()> command;
    {
      MutexLock lock(&mutex_);
      if (commands_.empty()) {
        changed_.NotifyAll();
        return;
      }
      command = commands_.front();
    }
    command();
    // Removed when done, so that an empty queue means that nothing is under way.
    MutexLock lock(&mutex_);
    commands_.pop_front();
  }
}

absl::Duration Supervisor::NextDeadline() const {
  absl::Duration next = left_states_.next_expiry();
  for (const auto& [slot, rank] : ranks_) {
    if (!rank->killed) {
      next = std::min(next, rank->kill_at);
    }
  }
  return next;
}

void Supervisor::KillOverdue() {
  const absl::Duration now = Now();
  for (const auto& [slot, rank] : ranks_) {
    if (rank->kill_at <= now) {
      KillRank(rank.get(), rank->kill_reason);
    }
  }
  left_states_.Expire(now);
}

const lasp::v1::RankExited* Supervisor::FindEnded(const lasp::v1::Fence& fence) const {
  const auto found = std::find_if(ended_.rbegin(), ended_.rend(), [&fence](const auto& exited) {
    return SameFence(exited.fence(), fence);
  });
  return found == ended_.rend() ? nullptr : &*found;
}

Supervisor::Rank* Supervisor::Find(const lasp::v1::Fence& fence) {
  for (const auto& [slot, rank] : ranks_) {
    if (SameFence(rank->assignment.fence(), fence)) {
      return rank.get();
    }
  }
  return nullptr;
}

void Supervisor::Watch(int descriptor, int slot, int kind, uint32_t events, bool modify) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = static_cast<uint64_t>(slot) * kKinds + static_cast<uint64_t>(kind);
  epoll_ctl(epoll_.get(), modify ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, descriptor, &event);
}

int Supervisor::FindWaiting(const lasp::v1::Fence& fence) const {
  MutexLock lock(&mutex_);
  for (const auto& [slot, assignment] : waiting_) {
    if (SameFence(assignment.fence(), fence)) {
      return slot;
    }
  }
  return -1;
}

std::map<int, lasp::v1::Assignment> Supervisor::TakeAllWaiting() {
  MutexLock lock(&mutex_);
  return std::exchange(waiting_, {});
}

std::optional<lasp::v1::Assignment> Supervisor::TakeWaiting(int slot) {
  MutexLock lock(&mutex_);
  const auto found = waiting_.find(slot);
  if (found == waiting_.end()) {
    return std::nullopt;
  }
  lasp::v1::Assignment assignment = std::move(found->second);
  waiting_.erase(found);
  return assignment;
}

void Supervisor::UpdateView(int slot, const std::function<void(LiveRank*)>& change) {
  MutexLock lock(&mutex_);
  change(&views_[slot]);
}

}  // namespace lasp::worker
