// What becomes of one rank: its start, its messages, its end. All on the supervisor's thread.
#include <sys/epoll.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/log.h"
#include "proto/rpc/rank_exit_code.h"
#include "proto/rpc/status_macros.h"
#include "worker/agent/rank_environment.h"
#include "worker/agent/rank_exit.h"
#include "worker/agent/supervisor.h"

namespace lasp::worker {
namespace {

using lasp::v1::RankStatus;

// What a rank that hangs is given to write down where it is.
constexpr absl::Duration kDumpTime = absl::Seconds(3);
// What a rank that is to leave its state is given to begin with it.
constexpr absl::Duration kFirstWordTime = absl::Seconds(3);
// Ends remembered, so that an assignment sent twice does not start a rank twice.
constexpr size_t kRememberedEnds = 1024;

absl::Duration Now() { return SystemClock().Monotonic(); }

// "T (stopped)", as the kernel says it; "not known" where it does not.
std::string ProcessState(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/status"));
  constexpr absl::string_view kState = "State:";
  for (std::string line; std::getline(file, line);) {
    absl::string_view rest = line;
    if (absl::ConsumePrefix(&rest, kState)) {
      return std::string(absl::StripAsciiWhitespace(rest));
    }
  }
  return "not known";
}

std::string RankName(const lasp::v1::Fence& fence) {
  return absl::StrCat(fence.training_job(), " generation ", fence.generation(), " rank ",
                      fence.rank());
}

}  // namespace

void Supervisor::DoLaunch(const lasp::v1::Assignment& assignment) {
  const lasp::v1::Fence& fence = assignment.fence();
  const int slot = assignment.slot();
  if (const lasp::v1::RankExited* const ended = FindEnded(fence)) {
    observer_->OnEnded(*ended);
    return;
  }
  if (slot < 0 || slot >= static_cast<int>(options_.slots.size())) {
    Tell(DescribeRefusal(
        fence, slot, kRankSuspectHost,
        absl::InvalidArgumentError(absl::StrCat("slot ", slot, " of ", options_.slots.size()))));
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
    std::optional<lasp::v1::Assignment> displaced;
    {
      MutexLock lock(&mutex_);
      const auto [place, is_new] = waiting_.try_emplace(slot, assignment);
      if (!is_new && !SameFence(place->second.fence(), fence)) {
        displaced = std::exchange(place->second, assignment);
      }
    }
    if (displaced.has_value()) {
      Tell(DescribeRefusal(displaced->fence(), slot, kRankRetry,
                           absl::CancelledError(absl::StrCat("superseded by ", RankName(fence)))));
    }
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
  const int slot = assignment.slot();
  const lasp::v1::Slot& place = options_.slots[static_cast<size_t>(slot)];
  const bool on_gpu = place.kind() == lasp::v1::Slot::KIND_GPU;
  LASP_ASSIGN_OR_RETURN(
      RankProcess process,
      StartRankProcess(on_gpu ? options_.cuda_rank_binary : options_.rank_binary,
                       RankEnvironment(options_.environment, options_.threads_a_rank,
                                       on_gpu ? place.gpu().uuid() : "")));
  const absl::Status recorded = ledger_->Record(process.pid);
  if (!recorded.ok()) {
    LASP_LOG(kWarning, "a rank is not recorded", {{"error", recorded.message()}});
  }
  logs_->Attach(std::move(log), std::move(process.log));

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
  observer_->OnStarted(assignment);

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
  setup->set_gemm_record(assignment.gemm_record());
  setup->set_peers_protocol_version(assignment.peers_protocol_version());
  setup->set_checkpoint_root(options_.checkpoint_root);
  setup->set_checkpoint_folder(assignment.checkpoint_folder());
  if (assignment.has_restore_from()) {
    *setup->mutable_restore_from() = assignment.restore_from();
  }
  setup->set_memory_root(options_.memory_root);
  if (assignment.has_rebuild()) {
    *setup->mutable_rebuild() = assignment.rebuild();
  }
  SendTo(started, message);
  return absl::OkStatus();
}

void Supervisor::DrainRank(Rank* rank, absl::Duration grace, const std::string& reason) {
  if (rank->killed) {
    return;  // for a reason that its end is to name
  }
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

void Supervisor::DumpRank(Rank* rank, const std::string& reason) {
  if (rank->killed || !rank->dump_reason.empty()) {
    return;
  }
  lasp::internal::v1::ToRank message;
  message.mutable_dump();
  SendTo(rank, message);
  rank->dump_reason = reason;
  rank->kill_at = Now() + kDumpTime;
  rank->kill_reason = absl::StrCat(reason, "; it did not say where it was, and is ",
                                   ProcessState(rank->process.pid));
}

void Supervisor::LeaveRank(Rank* rank, absl::Duration grace, const std::string& reason, bool dump) {
  if (rank->killed || rank->leave_deadline < absl::InfiniteDuration()) {
    return;
  }
  lasp::internal::v1::ToRank message;
  if (dump) {
    message.mutable_dump();
    SendTo(rank, message);
  }
  message.mutable_leave_state();
  SendTo(rank, message);
  rank->leave_deadline = Now() + grace;
  // One that is stuck is of no use.
  const absl::Duration at = rank->leaving ? rank->leave_deadline : Now() + kFirstWordTime;
  if (at < rank->kill_at) {
    rank->kill_at = at;
    rank->kill_reason = reason;
  }
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
    // Until it has ended, the rest of what it said would be an event time after time.
    epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, rank->link->descriptor(), nullptr);
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
    UpdateView(slot, [&message](LiveRank* view) {
      view->status.set_phase(RankStatus::PHASE_READY);
      view->gemm_record = message.ready().gemm_record();
    });
    lasp::v1::RankReady ready = message.ready();
    *ready.mutable_fence() = fence;
    observer_->OnReady(ready);
  } else if (message.has_step()) {
    if (rank->last_step == 0) {
      left_states_.RemoveOlder(fence);
    }
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
    if (message.phase().phase() == RankStatus::PHASE_STOPPING && !rank->leaving) {
      rank->leaving = true;
      left_states_.Expect(fence, Now());
      rank->kill_at = rank->killed ? rank->kill_at : rank->leave_deadline;
    }
  } else if (message.has_shard_written()) {
    lasp::v1::ShardWritten shard = message.shard_written();
    *shard.mutable_fence() = fence;
    observer_->OnShard(shard);
  } else if (message.has_checkpoint_totals()) {
    observer_->OnCheckpoints(fence, message.checkpoint_totals());
  } else if (message.has_progress()) {
    UpdateView(slot, [&message](LiveRank* view) {
      *view->status.mutable_progress() = message.progress();
      view->spoken = Now();
    });
  } else if (message.has_dumped()) {
    if (!rank->dump_reason.empty()) {
      KillRank(rank, absl::StrCat(rank->dump_reason, "; its log says where it was"));
    }
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
  ranks_.erase(found);
  const lasp::v1::RankExited exited = DescribeExit(
      rank->assignment.fence(), slot, wait_status, rank->finished,
      rank->killed ? rank->kill_reason : "", rank->last_step, rank->assignment.spec().max_steps());
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
  // Last: the disk may hang, and all know by now. A record of a process that is gone is no harm.
  ledger_->Erase(rank->process.pid);
  if (const std::optional<lasp::v1::Assignment> next = TakeWaiting(slot)) {
    DoLaunch(*next);
  }
}

void Supervisor::Tell(lasp::v1::RankExited exited) {
  observer_->OnEnded(exited);
  ended_.push_back(std::move(exited));
  if (ended_.size() > kRememberedEnds) {
    ended_.pop_front();
  }
}

}  // namespace lasp::worker
