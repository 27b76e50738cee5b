#include "tests/simulation/faults.h"

#include <array>

#include "absl/strings/str_cat.h"
#include "proto/rpc/rank_exit_code.h"

namespace lasp::simulation {

Faults::Faults(Context* context, Coordinator* coordinator, Disk* disk, CheckpointFiles* files,
               RankField* field, const Agents* agents)
    : context_(context),
      coordinator_(coordinator),
      disk_(disk),
      files_(files),
      field_(field),
      agents_(agents),
      random_(context->MakeRandom()),
      mean_pause_(random_.Between(absl::Milliseconds(700), absl::Seconds(12))) {}

void Faults::Begin() { Plan(); }

void Faults::Plan() {
  context_->timeline().After(random_.Between(absl::ZeroDuration(), 2 * mean_pause_), [this] {
    if (!ended_) {
      Strike();
      Plan();
    }
  });
}

void Faults::Strike() {
  const int what = random_.Below(100);
  if (what < 45) {
    StrikeAgent();
  } else if (what < 70) {
    StrikeRank();
  } else if (what < 76) {
    StrikeCheckpoints();
  } else {
    StrikeCoordinator();
  }
}

void Faults::StrikeAgent() {
  SimulatedAgent& agent =
      *(*agents_)[static_cast<size_t>(random_.Below(static_cast<int>(agents_->size())))];
  switch (random_.Below(9)) {
    case 0:
    case 1:
    case 2:
      agent.BreakStream();
      break;
    case 3:
      agent.Partition(random_.Chance(0.5)
                          ? random_.Between(absl::Milliseconds(100), absl::Seconds(7))
                          : random_.Between(absl::Seconds(5), absl::Seconds(25)));
      break;
    case 4:
    case 5:
      agent.Crash(/*ranks_die=*/random_.Chance(0.5));
      agent.StartAfter(random_.Between(absl::ZeroDuration(), absl::Seconds(15)));
      break;
    case 6:
      agent.LoseHost();
      agent.StartAfter(random_.Between(absl::Seconds(1), absl::Seconds(40)));
      break;
    case 7:
      agent.Stall(random_.Between(absl::Milliseconds(100), absl::Seconds(15)));
      break;
    default:
      agent.Terminate();
      break;
  }
}

void Faults::StrikeRank() {
  constexpr std::array kCodes = {0,
                                 1,
                                 kRankRetry,
                                 kRankRetry,
                                 kRankWrongConfiguration,
                                 kRankSuspectHost,
                                 kRankSuspectHost,
                                 kRankDrained,
                                 kRankDoNotRequeue,
                                 128 + 6,
                                 128 + 9,
                                 128 + 9,
                                 128 + 11};
  const std::vector<RankProcessPtr> alive = field_->Alive();
  if (alive.empty()) {
    return;
  }
  const RankProcessPtr& rank =
      alive[static_cast<size_t>(random_.Below(static_cast<int>(alive.size())))];
  const int what = random_.Below(10);
  if (what < 6) {
    field_->Exit(rank, kCodes[static_cast<size_t>(random_.Below(static_cast<int>(kCodes.size())))]);
    return;
  }
  const absl::Duration until =
      context_->now() + random_.Between(absl::Milliseconds(300), absl::Seconds(25));
  if (what < 9) {
    context_->Say("hangs: ", rank->Name());
    rank->hung_until = until;
  } else {
    context_->Say("does not die for a while: ", rank->Name());
    rank->undying_until = until;
  }
}

void Faults::StrikeCoordinator() {
  switch (random_.Below(8)) {
    case 0:
    case 1:
      CrashCoordinator();
      break;
    case 2:
    case 3:
      disk_->kill = random_.Chance(0.5) ? Disk::Kill::kBefore : Disk::Kill::kAfter;
      break;
    case 4:
    case 5:
      context_->Say("the disk is full");
      disk_->broken_until =
          context_->now() + random_.Between(absl::Milliseconds(50), absl::Seconds(15));
      break;
    case 6:
      coordinator_->Stall(random_.Between(absl::Milliseconds(100), absl::Seconds(12)));
      break;
    default:
      coordinator_->JumpWallClock(random_.Between(-absl::Minutes(5), absl::Minutes(5)));
      break;
  }
}

void Faults::StrikeCheckpoints() {
  if (random_.Chance(0.5)) {
    files_->Damage(&random_);
    return;
  }
  context_->Say("the disk with checkpoints does not answer");
  files_->BreakUntil(context_->now() + random_.Between(absl::Milliseconds(50), absl::Seconds(20)));
}

void Faults::CrashCoordinator() { coordinator_->Crash(); }

void Faults::End() {
  ended_ = true;
  disk_->kill = Disk::Kill::kNone;
  disk_->broken_until = absl::ZeroDuration();
  files_->BreakUntil(absl::ZeroDuration());
  if (agents_->size() > 1 && random_.Chance(0.15)) {
    SimulatedAgent& gone = *agents_->back();
    gone.Retire();
    gone.LoseHost();
  }
  for (const auto& agent : *agents_) {
    agent->Heal();
  }
}

}  // namespace lasp::simulation
