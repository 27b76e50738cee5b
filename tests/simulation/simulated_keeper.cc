#include "tests/simulation/simulated_keeper.h"

#include <signal.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/rank_exit_code.h"
#include "worker/agent/rank_exit.h"

namespace lasp::simulation {
namespace {

using lasp::internal::v1::FromRank;
using lasp::v1::RankStatus;
using worker::DescribeRefusal;
using worker::SameFence;

constexpr absl::Duration kDefaultGrace = absl::Seconds(30);
constexpr absl::Duration kLeaveTime = absl::Seconds(10);
constexpr size_t kRememberedEnds = 1024;

absl::Duration ToDuration(const google::protobuf::Duration& proto) {
  return absl::Seconds(proto.seconds()) + absl::Nanoseconds(proto.nanos());
}

}  // namespace

SimulatedKeeper::SimulatedKeeper(Context* context, RankField* field, std::string worker_id,
                                 int slots, worker::RankObserver* observer, Defer defer)
    : context_(context),
      field_(field),
      worker_id_(std::move(worker_id)),
      slots_(slots),
      observer_(observer),
      defer_(std::move(defer)),
      random_(context->MakeRandom()) {}

SimulatedKeeper::~SimulatedKeeper() {
  for (auto& [slot, rank] : ranks_) {
    rank.process->say = nullptr;
    rank.process->ended = nullptr;
  }
}

void SimulatedKeeper::Launch(const lasp::v1::Assignment& assignment) {
  const lasp::v1::Fence& fence = assignment.fence();
  const int slot = assignment.slot();
  if (const lasp::v1::RankExited* const ended = FindEnded(fence)) {
    observer_->OnEnded(*ended);
    return;
  }
  if (slot < 0 || slot >= slots_) {
    Tell(
        DescribeRefusal(fence, slot, kRankSuspectHost, absl::InvalidArgumentError("no such slot")));
    return;
  }
  for (const auto& [other_slot, rank] : ranks_) {
    const lasp::v1::Fence& other = rank.process->fence;
    if (SameFence(other, fence)) {
      return;
    }
    if (other.uid() == fence.uid() && other.generation() > fence.generation()) {
      Tell(DescribeRefusal(fence, slot, kRankRetry,
                           absl::FailedPreconditionError("a newer generation runs here")));
      return;
    }
  }
  for (auto& [other_slot, rank] : ranks_) {
    const lasp::v1::Fence& other = rank.process->fence;
    if (other_slot == slot ||
        (other.uid() == fence.uid() && other.generation() < fence.generation())) {
      // The agent copes with it; a coordinator that keeps count of slots never asks for it, and
      // begins anew only without those that it has given up.
      if (other_slot == slot || !rank.process->given_up) {
        context_->Violate(
            Invariant::kSlotOnce,
            absl::StrCat("rank ", fence.rank(), " of ", fence.training_job(), " generation ",
                         fence.generation(), " is assigned over ", rank.process->Name()));
      }
      Kill(&rank, "superseded");
    }
  }
  if (ranks_.contains(slot)) {
    const auto [place, is_new] = waiting_.try_emplace(slot, assignment);
    if (!is_new && !SameFence(place->second.fence(), fence)) {
      const lasp::v1::Fence displaced = place->second.fence();
      place->second = assignment;
      Tell(DescribeRefusal(displaced, slot, kRankRetry, absl::CancelledError("superseded")));
    }
    return;
  }
  Start(assignment);
}

void SimulatedKeeper::Start(const lasp::v1::Assignment& assignment) {
  auto process = std::make_shared<RankProcess>();
  process->fence = assignment.fence();
  process->worker_id = worker_id_;
  process->slot = assignment.slot();
  process->world_size = assignment.world_size();
  process->max_steps = assignment.spec().max_steps();
  process->interval_steps = assignment.spec().checkpoint().interval_steps();
  process->checkpoint_folder = assignment.checkpoint_folder();
  process->restore_from = assignment.restore_from();
  process->say = [this, process = process.get()](const FromRank& message) {
    defer_([this, weak = process->weak_from_this(), message] {
      if (const RankProcessPtr strong = weak.lock()) {
        Hear(strong, message);
      }
    });
  };
  process->ended = [this, process = process.get()](int wait_status) {
    defer_(
        [this, strong = process->shared_from_this(), wait_status] { Reap(strong, wait_status); });
  };
  Rank& rank = ranks_[assignment.slot()];
  rank = {};
  rank.process = process;
  *rank.view.status.mutable_fence() = assignment.fence();
  rank.view.status.set_slot(assignment.slot());
  rank.view.status.set_phase(RankStatus::PHASE_STARTING);
  field_->Spawn(process);
  observer_->OnStarted(assignment);
}

void SimulatedKeeper::SetPeers(const lasp::v1::PeerAddresses& peers) {
  if (Rank* const rank = Find(peers.fence()); rank != nullptr) {
    field_->SetPeers(rank->process, peers);
  }
}

void SimulatedKeeper::Train(const lasp::v1::Start& start) {
  if (Rank* const rank = Find(start.fence()); rank != nullptr) {
    field_->Train(rank->process);
  }
}

void SimulatedKeeper::Stop(const lasp::v1::Stop& stop) {
  const lasp::v1::Fence& fence = stop.fence();
  const auto waiting = std::find_if(waiting_.begin(), waiting_.end(), [&fence](const auto& entry) {
    return SameFence(entry.second.fence(), fence);
  });
  if (context_->plant() == Plant::kDeafAgent && random_.Chance(0.2)) {
    // Which rank is the first to be told so never hears of it.
    if (Rank* const rank = Find(fence); rank != nullptr) {
      rank->denied = true;
    }
  }
  if (waiting != waiting_.end()) {
    const int slot = waiting->first;
    waiting_.erase(waiting);
    Tell(DescribeRefusal(fence, slot, kRankDrained,
                         absl::CancelledError("stopped before it began")));
  } else if (Rank* const rank = Find(fence); rank != nullptr) {
    if (context_->plant() == Plant::kDeafAgent && rank->denied) {
      context_->Say("PLANTED: deaf to the stop of ", rank->process->Name());
      rank->process->hung_until = absl::Hours(1);
      return;
    }
    if (context_->plant() == Plant::kEarlyExit && !std::exchange(rank->denied, true)) {
      context_->Say("PLANTED: the end of ", rank->process->Name(), " is told early");
      rank->process->undying_until =
          context_->now() + random_.Between(absl::Seconds(1), absl::Seconds(20));
      observer_->OnEnded(worker::DescribeExit(fence, rank->process->slot, SIGKILL, std::nullopt,
                                              "told early", rank->last_step,
                                              rank->process->max_steps));
    }
    if (stop.mode() == lasp::v1::Stop::MODE_DRAIN) {
      Drain(rank, stop.has_grace_period() ? ToDuration(stop.grace_period()) : kDefaultGrace,
            stop.reason());
    } else {
      Kill(rank, stop.reason());
    }
  } else if (const lasp::v1::RankExited* const ended = FindEnded(fence)) {
    observer_->OnEnded(*ended);
  } else {
    observer_->OnEnded(
        DescribeRefusal(fence, -1, kRankRetry, absl::NotFoundError("no such rank here")));
  }
}

void SimulatedKeeper::DrainAll(absl::Duration grace) {
  for (const auto& [slot, assignment] : std::exchange(waiting_, {})) {
    Tell(DescribeRefusal(assignment.fence(), slot, kRankDrained,
                         absl::CancelledError("the worker drains")));
  }
  for (auto& [slot, rank] : ranks_) {
    Drain(&rank, grace, "the worker drains");
  }
}

void SimulatedKeeper::KillAll(const std::string& reason) {
  for (const auto& [slot, assignment] : std::exchange(waiting_, {})) {
    Tell(DescribeRefusal(assignment.fence(), slot, kRankRetry, absl::CancelledError(reason)));
  }
  for (auto& [slot, rank] : ranks_) {
    Kill(&rank, reason);
  }
}

std::vector<worker::LiveRank> SimulatedKeeper::Ranks() const {
  std::vector<worker::LiveRank> live;
  live.reserve(ranks_.size() + waiting_.size());
  for (const auto& [slot, rank] : ranks_) {
    if (context_->plant() != Plant::kEarlyExit || !rank.denied) {
      live.push_back(rank.view);
    }
  }
  for (const auto& [slot, assignment] : waiting_) {
    worker::LiveRank& rank = live.emplace_back();
    *rank.status.mutable_fence() = assignment.fence();
    rank.status.set_slot(slot);
    rank.status.set_phase(RankStatus::PHASE_STARTING);
  }
  return live;
}

void SimulatedKeeper::Drain(Rank* rank, absl::Duration grace, const std::string& reason) {
  if (rank->killed) {
    return;
  }
  rank->view.status.set_phase(RankStatus::PHASE_STOPPING);
  KillAfter(rank, grace, absl::StrCat("did not drain: ", reason));
  field_->Drain(rank->process);
}

void SimulatedKeeper::Kill(Rank* rank, const std::string& reason) {
  if (std::exchange(rank->killed, true)) {
    return;
  }
  rank->kill_reason = reason;
  rank->kill_at = absl::InfiniteDuration();
  rank->view.status.set_phase(RankStatus::PHASE_STOPPING);
  field_->Kill(rank->process);
}

void SimulatedKeeper::KillAfter(Rank* rank, absl::Duration delay, const std::string& reason) {
  const absl::Duration at = context_->now() + delay;
  if (at >= rank->kill_at) {
    return;
  }
  rank->kill_at = at;
  rank->kill_reason = reason;
  context_->timeline().After(delay, [this, defer = defer_, process = rank->process] {
    defer([this, process] {
      Rank* const late = Find(process);
      if (late != nullptr && late->kill_at <= context_->now()) {
        Kill(late, late->kill_reason);
      }
    });
  });
}

void SimulatedKeeper::Hear(const RankProcessPtr& process, const FromRank& message) {
  Rank* const rank = Find(process);
  if (rank == nullptr) {
    return;
  }
  RankStatus& status = rank->view.status;
  const lasp::v1::Fence& fence = process->fence;
  if (message.has_rank_address()) {
    rank->view.address = message.rank_address().address();
    lasp::v1::RankAddress address = message.rank_address();
    *address.mutable_fence() = fence;
    observer_->OnAddress(address);
  } else if (message.has_ready()) {
    status.set_phase(RankStatus::PHASE_READY);
    rank->view.gemm_record = message.ready().gemm_record();
    lasp::v1::RankReady ready = message.ready();
    *ready.mutable_fence() = fence;
    observer_->OnReady(ready);
  } else if (message.has_step()) {
    rank->last_step = message.step().step();
    status.set_step(rank->last_step);
    if (status.phase() == RankStatus::PHASE_READY) {
      status.set_phase(RankStatus::PHASE_TRAINING);
    }
    observer_->OnStep(fence, message.step());
  } else if (message.has_phase()) {
    status.set_phase(message.phase().phase());
  } else if (message.has_shard_written()) {
    lasp::v1::ShardWritten shard = message.shard_written();
    *shard.mutable_fence() = fence;
    observer_->OnShard(shard);
  } else if (message.has_finished()) {
    rank->finished = message.finished();
    status.set_phase(RankStatus::PHASE_STOPPING);
    if (!rank->killed) {
      KillAfter(rank, kLeaveTime, "said its last word and did not end");
    }
  }
}

void SimulatedKeeper::Reap(const RankProcessPtr& process, int wait_status) {
  Rank* const rank = Find(process);
  if (rank == nullptr) {
    return;
  }
  const int slot = process->slot;
  lasp::v1::RankExited exited = worker::DescribeExit(
      process->fence, slot, wait_status, rank->finished, rank->killed ? rank->kill_reason : "",
      rank->last_step, process->max_steps);
  Tell(std::move(exited));
  ranks_.erase(slot);
  if (const auto next = waiting_.find(slot); next != waiting_.end()) {
    const lasp::v1::Assignment assignment = next->second;
    waiting_.erase(next);
    Launch(assignment);
  }
}

void SimulatedKeeper::Tell(lasp::v1::RankExited exited) {
  observer_->OnEnded(exited);
  ended_.push_back(std::move(exited));
  if (ended_.size() > kRememberedEnds) {
    ended_.pop_front();
  }
}

const lasp::v1::RankExited* SimulatedKeeper::FindEnded(const lasp::v1::Fence& fence) const {
  const auto found = std::find_if(ended_.rbegin(), ended_.rend(), [&fence](const auto& exited) {
    return SameFence(exited.fence(), fence);
  });
  return found == ended_.rend() ? nullptr : &*found;
}

SimulatedKeeper::Rank* SimulatedKeeper::Find(const lasp::v1::Fence& fence) {
  for (auto& [slot, rank] : ranks_) {
    if (SameFence(rank.process->fence, fence)) {
      return &rank;
    }
  }
  return nullptr;
}

SimulatedKeeper::Rank* SimulatedKeeper::Find(const RankProcessPtr& process) {
  const auto found = ranks_.find(process->slot);
  return found == ranks_.end() || found->second.process != process ? nullptr : &found->second;
}

}  // namespace lasp::simulation
