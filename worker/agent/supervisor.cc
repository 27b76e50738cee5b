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
#include "proto/rpc/rank_exit_code.h"
#include "proto/rpc/status_macros.h"
#include "worker/agent/rank_environment.h"
#include "worker/agent/rank_exit.h"

namespace lasp::worker {
namespace {

using lasp::v1::RankStatus;

constexpr absl::Duration kDefaultGrace = absl::Seconds(30);
constexpr absl::Duration kDestructionTime = absl::Seconds(5);
// Ends remembered, so that an assignment sent twice does not start a rank twice.
constexpr size_t kRememberedEnds = 1024;

// Keys of epoll events: the slot and what of it.
enum Kind { kExit = 0, kChannel = 1, kKinds = 2 };

constexpr uint64_t kWakeKey = ~uint64_t{0};

absl::Duration Now() { return SystemClock().Monotonic(); }

absl::Duration ToDuration(const google::protobuf::Duration& proto) {
  return absl::Seconds(proto.seconds()) + absl::Nanoseconds(proto.nanos());
}

std::string RankName(const lasp::v1::Fence& fence) {
  return absl::StrCat(fence.training_job(), " generation ", fence.generation(), " rank ",
                      fence.rank());
}

}  // namespace

Supervisor::Supervisor(SupervisorOptions options, const RankLedger* ledger, RankLogs* logs,
                       RankObserver* observer)
    : options_(std::move(options)),
      ledger_(ledger),
      logs_(logs),
      observer_(observer),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
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
    const auto waits = std::find_if(waiting_.begin(), waiting_.end(), [&fence](const auto& entry) {
      return SameFence(entry.second.fence(), fence);
    });
    if (waits != waiting_.end()) {
      const int slot = waits->first;
      waiting_.erase(waits);
      Tell(DescribeRefusal(
          fence, slot, kRankDrained,
          absl::CancelledError(absl::StrCat("stopped before its start: ", stop.reason()))));
    } else if (Rank* const rank = Find(fence)) {
      const absl::Duration grace =
          stop.has_grace_period() ? ToDuration(stop.grace_period()) : kDefaultGrace;
      if (stop.mode() == lasp::v1::Stop::MODE_DRAIN) {
        DrainRank(rank, grace, stop.reason());
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
    for (const auto& [slot, assignment] : std::exchange(waiting_, {})) {
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
    for (const auto& [slot, assignment] : std::exchange(waiting_, {})) {
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
  for (const auto& [slot, view] : views_) {
    ranks.push_back(view);
  }
  return ranks;
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
  absl::Duration next = absl::InfiniteDuration();
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
}

void Supervisor::DoLaunch(const lasp::v1::Assignment& assignment) {
  const lasp::v1::Fence& fence = assignment.fence();
  const int slot = assignment.slot();
  if (const lasp::v1::RankExited* const ended = FindEnded(fence)) {
    observer_->OnEnded(*ended);
    return;
  }
  if (slot < 0 || slot >= options_.slots) {
    Tell(DescribeRefusal(
        fence, slot, kRankSuspectHost,
        absl::InvalidArgumentError(absl::StrCat("slot ", slot, " of ", options_.slots))));
    return;
  }
  for (const auto& [other_slot, rank] : ranks_) {
    const lasp::v1::Fence& other = rank->assignment.fence();
    if (SameFence(other, fence)) {
      return;
    }
    if (other.uid() == fence.uid() && other.generation() > fence.generation()) {
      Tell(DescribeRefusal(fence, slot, kRankRetry,
                           absl::FailedPreconditionError(absl::StrCat(
                               "generation ", other.generation(), " runs here already"))));
      return;
    }
  }
  for (const auto& [other_slot, rank] : ranks_) {
    const lasp::v1::Fence& other = rank->assignment.fence();
    if (other_slot == slot ||
        (other.uid() == fence.uid() && other.generation() < fence.generation())) {
      KillRank(rank.get(), absl::StrCat("superseded by ", RankName(fence)));
    }
  }
  if (ranks_.count(slot) != 0) {
    waiting_[slot] = assignment;
    return;
  }
  const absl::Status started = StartRank(assignment);
  if (!started.ok()) {
    LASP_LOG(kError, "a rank was not started",
             {{"rank", RankName(fence)}, {"error", started.message()}});
    Tell(DescribeRefusal(fence, slot, kRankSuspectHost, started));
  }
}

absl::Status Supervisor::StartRank(const lasp::v1::Assignment& assignment) {
  LASP_ASSIGN_OR_RETURN(FencedLog log, logs_->Prepare(assignment.fence()));
  LASP_ASSIGN_OR_RETURN(
      RankProcess process,
      StartRankProcess(options_.rank_binary,
                       RankEnvironment(options_.environment, options_.threads_a_rank)));
  const absl::Status recorded = ledger_->Record(process.pid);
  if (!recorded.ok()) {
    LASP_LOG(kWarning, "a rank is not recorded", {{"error", recorded.message()}});
  }
  logs_->Attach(std::move(log), std::move(process.log));

  const int slot = assignment.slot();
  auto rank = std::make_unique<Rank>();
  rank->assignment = assignment;
  rank->link = std::make_unique<RankLink>(std::move(process.channel));
  rank->process = std::move(process);
  Watch(rank->process.pidfd.get(), slot, kExit, EPOLLIN);
  Watch(rank->link->descriptor(), slot, kChannel, EPOLLIN);
  Rank* const started = rank.get();
  ranks_[slot] = std::move(rank);
  LASP_LOG(kInfo, "rank started",
           {{"rank", RankName(assignment.fence())}, {"pid", started->process.pid}});
  RankStatus status;
  *status.mutable_fence() = assignment.fence();
  status.set_slot(slot);
  status.set_phase(RankStatus::PHASE_STARTING);
  UpdateView(slot, [&status](LiveRank* view) { view->status = status; });
  observer_->OnStarted(status);

  lasp::internal::v1::ToRank message;
  lasp::internal::v1::Setup* const setup = message.mutable_setup();
  *setup->mutable_fence() = assignment.fence();
  setup->set_world_size(assignment.world_size());
  *setup->mutable_spec() = assignment.spec();
  for (const std::string& root : options_.path_roots) {
    setup->add_path_roots(root);
  }
  setup->set_rank_address(options_.rank_address);
  setup->set_threads(options_.threads_a_rank);
  setup->set_dump_directory(options_.dump_directory);
  SendTo(started, message);
  return absl::OkStatus();
}

void Supervisor::DrainRank(Rank* rank, absl::Duration grace, const std::string& reason) {
  lasp::internal::v1::ToRank message;
  message.mutable_drain();
  SendTo(rank, message);
  const absl::Duration at = Now() + grace;
  if (at < rank->kill_at) {
    rank->kill_at = at;
    rank->kill_reason =
        absl::StrCat("did not drain within ", absl::FormatDuration(grace), " (", reason, ")");
  }
  UpdateView(rank->assignment.slot(),
             [](LiveRank* view) { view->status.set_phase(RankStatus::PHASE_STOPPING); });
}

void Supervisor::KillRank(Rank* rank, const std::string& reason) {
  if (rank->killed) {
    return;
  }
  rank->killed = true;
  rank->kill_reason = reason;
  rank->kill_at = absl::InfiniteDuration();
  KillRankProcess(rank->process.pid);
  UpdateView(rank->assignment.slot(),
             [](LiveRank* view) { view->status.set_phase(RankStatus::PHASE_STOPPING); });
}

void Supervisor::SendTo(Rank* rank, const lasp::internal::v1::ToRank& message) {
  const absl::Status sent = rank->link->Send(message);
  if (!sent.ok()) {
    KillRank(rank, std::string(sent.message()));
  }
  if (rank->link->wants_write()) {
    Watch(rank->link->descriptor(), rank->assignment.slot(), kChannel, EPOLLIN | EPOLLOUT, true);
  }
}

void Supervisor::Receive(Rank* rank) {
  const auto messages = rank->link->Receive();
  if (!messages.ok()) {
    KillRank(rank, std::string(messages.status().message()));
    return;
  }
  for (const lasp::internal::v1::FromRank& message : *messages) {
    HandleMessage(rank, message);
  }
  if (rank->link->closed()) {
    // Nothing more comes; the process's end is watched apart.
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, rank->link->descriptor(), nullptr);
    if (!rank->killed && rank->kill_at == absl::InfiniteDuration()) {
      rank->kill_at = Now() + options_.leave_time;
      rank->kill_reason = "closed its channel and did not end";
    }
  }
}

void Supervisor::HandleMessage(Rank* rank, const lasp::internal::v1::FromRank& message) {
  const lasp::v1::Fence& fence = rank->assignment.fence();
  const int slot = rank->assignment.slot();
  if (message.has_rank_address()) {
    UpdateView(slot,
               [&message](LiveRank* view) { view->address = message.rank_address().address(); });
    lasp::v1::RankAddress address = message.rank_address();
    *address.mutable_fence() = fence;
    observer_->OnAddress(address);
  } else if (message.has_ready()) {
    UpdateView(slot, [](LiveRank* view) { view->status.set_phase(RankStatus::PHASE_READY); });
    lasp::v1::RankReady ready;
    *ready.mutable_fence() = fence;
    observer_->OnReady(ready);
  } else if (message.has_step()) {
    rank->last_step = message.step().step();
    UpdateView(slot, [&message](LiveRank* view) {
      view->status.set_step(message.step().step());
      if (view->status.phase() == RankStatus::PHASE_READY) {
        view->status.set_phase(RankStatus::PHASE_TRAINING);
      }
    });
    observer_->OnStep(fence, message.step());
  } else if (message.has_phase()) {
    UpdateView(slot,
               [&message](LiveRank* view) { view->status.set_phase(message.phase().phase()); });
  } else if (message.has_finished()) {
    rank->finished = message.finished();
    UpdateView(slot, [](LiveRank* view) { view->status.set_phase(RankStatus::PHASE_STOPPING); });
    if (!rank->killed && Now() + options_.leave_time < rank->kill_at) {
      rank->kill_at = Now() + options_.leave_time;
      rank->kill_reason = "said its last word and did not end";
    }
  }
}

void Supervisor::Reap(int slot) {
  const auto found = ranks_.find(slot);
  const std::unique_ptr<Rank> rank = std::move(found->second);
  // What it said before it died is still in the socket.
  for (;;) {
    const auto messages = rank->link->Receive();
    if (!messages.ok() || messages->empty()) {
      break;
    }
    for (const lasp::internal::v1::FromRank& message : *messages) {
      HandleMessage(rank.get(), message);
    }
  }
  // While the zombie keeps its number, no other process can have it.
  KillRankProcess(rank->process.pid);
  int wait_status = 0;
  while (waitpid(rank->process.pid, &wait_status, 0) < 0 && errno == EINTR) {
  }
  ledger_->Erase(rank->process.pid);
  ranks_.erase(found);
  const lasp::v1::RankExited exited =
      DescribeExit(rank->assignment.fence(), slot, wait_status, rank->finished,
                   rank->killed ? rank->kill_reason : "", rank->last_step);
  LASP_LOG(kInfo, "rank ended",
           {{"rank", RankName(exited.fence())},
            {"pid", rank->process.pid},
            {"exit_code", exited.exit_code()},
            {"status", exited.status().message()}});
  Tell(exited);
  {
    MutexLock lock(&mutex_);
    views_.erase(slot);
    changed_.NotifyAll();
  }
  const auto next = waiting_.find(slot);
  if (next != waiting_.end()) {
    const lasp::v1::Assignment assignment = next->second;
    waiting_.erase(next);
    DoLaunch(assignment);
  }
}

void Supervisor::Tell(lasp::v1::RankExited exited) {
  observer_->OnEnded(exited);
  ended_.push_back(std::move(exited));
  if (ended_.size() > kRememberedEnds) {
    ended_.pop_front();
  }
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

void Supervisor::UpdateView(int slot, const std::function<void(LiveRank*)>& change) {
  MutexLock lock(&mutex_);
  change(&views_[slot]);
}

}  // namespace lasp::worker
