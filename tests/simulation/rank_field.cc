#include "tests/simulation/rank_field.h"

#include <signal.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/checkpoint/checkpoint_reader.h"
#include "proto/checkpoint/manifest.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/rank_exit_code.h"

namespace lasp::simulation {
namespace {

using lasp::internal::v1::FromRank;
using State = RankProcess::State;

int WaitStatusOfExit(int code) { return code << 8; }

std::string GangName(const lasp::v1::Fence& fence) {
  return absl::StrCat(fence.uid(), "/", fence.generation());
}

}  // namespace

std::string RankProcess::Name() const {
  return absl::StrCat("rank ", fence.rank(), " of ", fence.training_job(), " generation ",
                      fence.generation(), " on ", worker_id, " slot ", slot);
}

RankField::Gang& RankField::GangOf(const RankProcess& process) {
  Gang& gang = gangs_[{process.fence.uid(), process.fence.generation()}];
  gang.ranks.resize(static_cast<size_t>(process.world_size));
  gang.step = std::max(gang.step, process.restore_from.step());
  return gang;
}

std::vector<RankProcessPtr> RankField::Alive() const { return alive_; }

std::vector<RankProcessPtr> RankField::AliveOn(const std::string& worker_id) const {
  std::vector<RankProcessPtr> here;
  for (const RankProcessPtr& process : alive_) {
    if (process->worker_id == worker_id) {
      here.push_back(process);
    }
  }
  return here;
}

void RankField::NoteStanding(const std::string& worker_id, Standing standing) {
  const Standing before = std::exchange(standings_[worker_id], standing);
  for (const RankProcessPtr& process : AliveOn(worker_id)) {
    const JobShadow* const job = checker_->FindByUid(process->fence.uid());
    const bool adopted = standing == Standing::kThere && before == Standing::kAwaited &&
                         job != nullptr && job->live() &&
                         job->generation == process->fence.generation();
    process->given_up_for_good = process->given_up_for_good || standing == Standing::kLost;
    process->given_up = process->given_up_for_good || standing != Standing::kThere ||
                        (process->given_up && !adopted);
  }
}

void RankField::CheckAlone(const RankProcess& process) {
  if (process.given_up) {
    // An old order that its host had not read yet; it is stopped when its agent is back.
    return;
  }
  const JobShadow* const job = checker_->FindByUid(process.fence.uid());
  if (job != nullptr && job->generation > process.fence.generation()) {
    context_->Violate(Invariant::kOneGeneration,
                      absl::StrCat(process.Name(), " begins after generation ", job->generation));
  }
  for (const RankProcessPtr& other : alive_) {
    if (other->fence.uid() == process.fence.uid() && other->told_to_train && !other->given_up &&
        other->fence.generation() != process.fence.generation()) {
      context_->Violate(Invariant::kOneGeneration,
                        absl::StrCat(process.Name(), " begins while ", other->Name(),
                                     " lives, which was told to train"));
    }
  }
}

void RankField::Spawn(const RankProcessPtr& process) {
  if (context_->recording()) {
    context_->Say("starts ", process->Name());
  }
  const Standing standing = standings_[process->worker_id];
  process->given_up = standing != Standing::kThere;
  const JobShadow* const job = checker_->FindByUid(process->fence.uid());
  const bool overtaken =
      !coordinator_up_ && job != nullptr && job->generation > process->fence.generation();
  process->given_up_for_good = standing == Standing::kLost || overtaken;
  process->given_up = process->given_up || overtaken;
  for (const RankProcessPtr& other : alive_) {
    if (other->worker_id == process->worker_id && other->slot == process->slot) {
      context_->Violate(Invariant::kSlotOnce,
                        absl::StrCat(process->Name(), " begins in the slot of ", other->Name()));
    }
  }
  CheckAlone(*process);
  alive_.push_back(process);
  GangOf(*process).ranks[static_cast<size_t>(process->fence.rank())] = process;
  Plan(random_.Between(absl::Milliseconds(30), absl::Milliseconds(1500)), process, [this, process] {
    process->state = std::max(process->state, State::kAddressed);
    FromRank message;
    // It names the gang, so that ranks of two generations that meet are noticed.
    message.mutable_rank_address()->set_address(GangName(process->fence));
    Say(process, message);
  });
}

void RankField::Plan(absl::Duration delay, const RankProcessPtr& process,
                     std::function<void()> work) {
  context_->timeline().After(delay, [this, process, work = std::move(work)]() mutable {
    if (!process->alive) {
      return;
    }
    if (process->hung_until > context_->now()) {
      Plan(process->hung_until - context_->now(), process, std::move(work));
    } else {
      work();
    }
  });
}

void RankField::Say(const RankProcessPtr& process, const FromRank& message) {
  if (process->say != nullptr) {
    process->say(message);
  }
}

void RankField::SetPeers(const RankProcessPtr& process, const lasp::v1::PeerAddresses& peers) {
  for (const std::string& address : peers.addresses()) {
    if (address != GangName(process->fence)) {
      context_->Violate(Invariant::kOneGeneration,
                        absl::StrCat(process->Name(), " is to meet a rank of ", address));
    }
  }
  if (process->alive && process->state < State::kMeshing) {
    process->state = State::kMeshing;
    Plan(random_.Between(absl::Milliseconds(5), absl::Milliseconds(300)), process,
         [this, process] { MeetPeers(process); });
  }
}

void RankField::MeetPeers(const RankProcessPtr& process) {
  if (process->state != State::kMeshing) {
    return;
  }
  const Gang& gang = GangOf(*process);
  const bool all_there = std::all_of(gang.ranks.begin(), gang.ranks.end(), [](const auto& rank) {
    return rank != nullptr && rank->alive && rank->state >= State::kMeshing;
  });
  if (!all_there) {
    Plan(absl::Milliseconds(250), process, [this, process] { MeetPeers(process); });
    return;
  }
  if (!Restore(process)) {
    return;
  }
  process->state = State::kReady;
  FromRank message;
  message.mutable_ready();
  if (process->fence.rank() == 0) {
    message.mutable_ready()->set_gemm_record(GangName(process->fence));
  }
  Say(process, message);
}

void RankField::Train(const RankProcessPtr& process) {
  if (!process->alive || process->state != State::kReady) {
    return;
  }
  CheckAlone(*process);
  process->told_to_train = true;
  process->state = State::kTraining;
  FromRank message;
  message.mutable_phase()->set_phase(lasp::v1::RankStatus::PHASE_TRAINING);
  Say(process, message);
  PlanStep({process->fence.uid(), process->fence.generation()});
}

void RankField::PlanStep(const GangKey& key) {
  Gang& gang = gangs_[key];
  if (gang.stepping) {
    return;
  }
  gang.stepping = true;
  context_->timeline().After(random_.Between(absl::Milliseconds(100), absl::Milliseconds(900)),
                             [this, key] { Step(key); });
}

void RankField::Step(const GangKey& key) {
  Gang& gang = gangs_[key];
  gang.stepping = false;
  absl::Duration hung_until;
  for (const RankProcessPtr& rank : gang.ranks) {
    if (rank == nullptr || !rank->alive || rank->state != State::kTraining) {
      // Who comes later, or notices the absence, goes on from there.
      return;
    }
    hung_until = std::max(hung_until, rank->hung_until);
  }
  if (hung_until > context_->now()) {
    gang.stepping = true;
    context_->timeline().After(hung_until - context_->now(), [this, key] { Step(key); });
    return;
  }
  const RankProcessPtr first = gang.ranks[0];
  if (gang.step >= first->max_steps) {
    // It goes on from the end.
    for (const RankProcessPtr& rank : std::vector<RankProcessPtr>(gang.ranks)) {
      Leave(rank, kRankDone, gang.step);
    }
    return;
  }
  const int64_t step = ++gang.step;
  FromRank message;
  message.mutable_step()->set_step(step);
  auto* const metrics = message.mutable_step()->mutable_metrics();
  metrics->set_step(step);
  metrics->set_loss(10.0 / static_cast<double>(step));
  metrics->set_step_seconds(0.5);
  metrics->set_token_count(Checker::Origin(key.second, step));
  Say(first, message);
  const bool drain = std::any_of(gang.ranks.begin(), gang.ranks.end(),
                                 [](const RankProcessPtr& rank) { return rank->wants_drain; });
  const bool last = step >= first->max_steps || drain;
  if (!last) {
    PlanStep(key);
  }
  const bool due = first->interval_steps > 0 && step % first->interval_steps == 0;
  for (const RankProcessPtr& rank : std::vector<RankProcessPtr>(gang.ranks)) {
    if (last) {
      rank->state = State::kLeaving;
      Save(rank, step, [this, rank, step] {
        Leave(rank, step >= rank->max_steps ? kRankDone : kRankDrained, step);
      });
    } else if (due) {
      Save(rank, step, [] {});
    }
  }
}

void RankField::Save(const RankProcessPtr& process, int64_t step, std::function<void()> then) {
  if (process->checkpoint_folder.empty()) {
    then();
    return;
  }
  Plan(random_.Between(absl::Milliseconds(5), absl::Milliseconds(1500)), process,
       [this, process, step, then = std::move(then)] {
         FromRank message;
         lasp::v1::ShardWritten& written = *message.mutable_shard_written();
         written.set_step(step);
         if (files_->broken() || random_.Chance(0.02)) {
           written.mutable_status()->set_code(
               static_cast<int>(absl::StatusCode::kResourceExhausted));
           written.mutable_status()->set_message("no space is left");
         } else {
           const int64_t generation = process->fence.generation();
           *written.mutable_shard() =
               CheckpointFiles::ShardOf(step, generation, process->fence.rank());
           files_->Write(absl::StrCat(process->checkpoint_folder, "/",
                                      CheckpointFolderName(step, generation)),
                         written.shard());
         }
         Say(process, message);
         then();
       });
}

bool RankField::Restore(const RankProcessPtr& process) {
  const lasp::v1::CheckpointReference& from = process->restore_from;
  if (from.step() == 0) {
    return true;
  }
  const absl::Status read = files_->Verify(from.folder(), from.manifest_digest());
  if (read.ok()) {
    return true;
  }
  process->state = State::kLeaving;
  FromRank message;
  *message.mutable_finished()->mutable_status() =
      StatusToProto(absl::IsDataLoss(read) ? ErrorWithReason(absl::StatusCode::kDataLoss,
                                                             read.message(), kCheckpointCorrupt)
                                           : read);
  Say(process, message);
  Plan(random_.Between(absl::Milliseconds(1), absl::Milliseconds(50)), process,
       [this, process] { End(process, WaitStatusOfExit(kRankRetry)); });
  return false;
}

void RankField::Leave(const RankProcessPtr& process, int code, int64_t step) {
  process->state = State::kLeaving;
  Plan(random_.Between(absl::Milliseconds(1), absl::Milliseconds(300)), process,
       [this, process, code, step] {
         FromRank message;
         message.mutable_finished()->set_step(step);
         Say(process, message);
         Plan(random_.Between(absl::Milliseconds(1), absl::Milliseconds(50)), process,
              [this, process, code] { End(process, WaitStatusOfExit(code)); });
       });
}

void RankField::Drain(const RankProcessPtr& process) {
  process->wants_drain = true;
  if (process->alive && process->state < State::kTraining) {
    Leave(process, kRankDrained, 0);
  }
}

void RankField::Kill(const RankProcessPtr& process) {
  const absl::Duration delay =
      std::max(process->undying_until - context_->now(), absl::ZeroDuration()) +
      random_.Between(absl::Milliseconds(1), absl::Milliseconds(15));
  // Hung or not.
  context_->timeline().After(delay, [this, process] {
    if (process->alive) {
      End(process, SIGKILL);
    }
  });
}

void RankField::Exit(const RankProcessPtr& process, int code) {
  constexpr int kSignalBase = 128;
  End(process, code > kSignalBase ? code - kSignalBase : WaitStatusOfExit(code));
}

void RankField::KillAllOn(const std::string& worker_id) {
  for (const RankProcessPtr& process : AliveOn(worker_id)) {
    End(process, SIGKILL);
  }
}

void RankField::End(const RankProcessPtr& process, int wait_status) {
  if (!std::exchange(process->alive, false)) {
    return;
  }
  if (context_->recording()) {
    context_->Say("ends (wait status ", wait_status, "): ", process->Name());
  }
  std::erase(alive_, process);
  if (process->ended != nullptr) {
    process->ended(wait_status);
  }
  // Its peers lose their connections, each in its own time.
  for (const RankProcessPtr& peer : GangOf(*process).ranks) {
    if (peer != nullptr && peer->alive && peer->state >= State::kMeshing &&
        peer->state <= State::kTraining) {
      Plan(random_.Chance(0.2) ? random_.Between(absl::Seconds(1), absl::Seconds(8))
                               : random_.Between(absl::Milliseconds(1), absl::Seconds(1)),
           peer, [this, peer] {
             if (peer->state <= State::kTraining) {
               End(peer, WaitStatusOfExit(kRankRetry));
             }
           });
    }
  }
}

}  // namespace lasp::simulation
