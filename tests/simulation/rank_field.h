// The rank processes of all hosts, and what they do with one another: they meet, train in step, and
// suffer when one of them is gone.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lasp/internal/v1/rank_channel.pb.h"
#include "lasp/v1/worker_service.pb.h"
#include "tests/simulation/checker.h"
#include "tests/simulation/checkpoint_files.h"
#include "tests/simulation/context.h"

namespace lasp::simulation {

struct RankProcess : std::enable_shared_from_this<RankProcess> {
  enum class State { kBooting, kAddressed, kMeshing, kReady, kTraining, kLeaving };

  lasp::v1::Fence fence;
  std::string worker_id;
  int slot = 0;
  int world_size = 1;
  int64_t max_steps = 0;
  // Steps between checkpoints; 0 for the last step alone.
  int64_t interval_steps = 0;
  // Where they go; empty: nowhere.
  std::string checkpoint_folder;
  // What it goes on from; of step 0: the beginning.
  lasp::v1::CheckpointReference restore_from;
  State state = State::kBooting;
  bool alive = true;
  // Whether it was ever told to train.
  bool told_to_train = false;
  bool wants_drain = false;
  // Whether the coordinator has given its host up since it began; not for good, where it may still
  // take the rank over again.
  bool given_up = false;
  bool given_up_for_good = false;
  // It does nothing until then; nor does it die before `undying_until`.
  absl::Duration hung_until;
  absl::Duration undying_until;
  // To its agent: what it says, and its end as waitpid tells it. Null where the agent is gone.
  std::function<void(const lasp::internal::v1::FromRank&)> say;
  std::function<void(int wait_status)> ended;

  std::string Name() const;
};

using RankProcessPtr = std::shared_ptr<RankProcess>;

class RankField {
 public:
  RankField(Context* context, Checker* checker, CheckpointFiles* files)
      : context_(context), checker_(checker), files_(files), random_(context->MakeRandom()) {}

  // A process begins; `process` says where, as what, and to whom it speaks.
  void Spawn(const RankProcessPtr& process);

  // --- what its agent does to it ---
  void SetPeers(const RankProcessPtr& process, const lasp::v1::PeerAddresses& peers);
  void Train(const RankProcessPtr& process);
  void Drain(const RankProcessPtr& process);
  // SIGKILL, now or as soon as it can die.
  void Kill(const RankProcessPtr& process);

  // --- faults ---
  void Exit(const RankProcessPtr& process, int code);
  void KillAllOn(const std::string& worker_id);
  // How the coordinator sees a worker: there; not there since its own start, so that it waits for
  // the ranks; lost with its ranks.
  enum class Standing { kThere, kAwaited, kLost };
  void NoteStanding(const std::string& worker_id, Standing standing);

  // Whether the coordinator runs. One that dies right behind a commit has told nobody whom it gave
  // up in it.
  void NoteCoordinator(bool up) { coordinator_up_ = up; }

  // Those that live.
  std::vector<RankProcessPtr> Alive() const;
  std::vector<RankProcessPtr> AliveOn(const std::string& worker_id) const;

 private:
  // By the job's uid and generation.
  using GangKey = std::pair<std::string, int64_t>;

  struct Gang {
    std::vector<RankProcessPtr> ranks;
    int64_t step = 0;
    bool stepping = false;
  };

  // Runs `work` for a process that still lives, after its hang where it hangs.
  void Plan(absl::Duration delay, const RankProcessPtr& process, std::function<void()> work);
  void Say(const RankProcessPtr& process, const lasp::internal::v1::FromRank& message);
  void End(const RankProcessPtr& process, int wait_status);
  // Says its last word and goes.
  void Leave(const RankProcessPtr& process, int code, int64_t step);
  // Writes its shard, says so, and does what comes then.
  void Save(const RankProcessPtr& process, int64_t step, std::function<void()> then);
  // Whether what it goes on from is whole; otherwise it says so and goes.
  bool Restore(const RankProcessPtr& process);
  void MeetPeers(const RankProcessPtr& process);
  void PlanStep(const GangKey& key);
  void Step(const GangKey& key);
  Gang& GangOf(const RankProcess& process);
  void CheckAlone(const RankProcess& process);

  Context* const context_;
  Checker* const checker_;
  CheckpointFiles* const files_;
  Random random_;
  std::map<GangKey, Gang> gangs_;
  // In the order of their start.
  std::vector<RankProcessPtr> alive_;
  bool coordinator_up_ = true;
  std::map<std::string, Standing> standings_;
};

}  // namespace lasp::simulation
