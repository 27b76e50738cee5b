// An agent's supervisor over simulated processes: does what worker/agent/supervisor does, without
// its thread.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/simulation/context.h"
#include "tests/simulation/rank_field.h"
#include "worker/agent/rank_keeper.h"
#include "worker/agent/rank_observer.h"

namespace lasp::simulation {

class SimulatedKeeper final : public worker::RankKeeper {
 public:
  // `defer` runs its argument on the agent's behalf: soon, or when it is no longer stalled, and not
  // at all where the agent has died.
  using Defer = std::function<void(std::function<void()>)>;

  SimulatedKeeper(Context* context, RankField* field, std::string worker_id, int slots,
                  worker::RankObserver* observer, Defer defer);
  // The processes are left to themselves.
  ~SimulatedKeeper() override;

  void Launch(const lasp::v1::Assignment& assignment) override;
  void SetPeers(const lasp::v1::PeerAddresses& peers) override;
  void Train(const lasp::v1::Start& start) override;
  void Stop(const lasp::v1::Stop& stop) override;
  void DrainAll(absl::Duration grace) override;
  void KillAll(const std::string& reason) override;
  std::vector<worker::LiveRank> Ranks() const override;

  bool WaitUntilSettled(absl::Duration /*timeout*/) const override { return true; }

  bool WaitUntilEmpty(absl::Duration /*timeout*/) const override { return ranks_.empty(); }

 private:
  struct Rank {
    RankProcessPtr process;
    worker::LiveRank view;
    std::optional<lasp::internal::v1::RankFinished> finished;
    int64_t last_step = 0;
    absl::Duration kill_at = absl::InfiniteDuration();
    std::string kill_reason;
    bool killed = false;
    // The planted early word of its end has been said.
    bool denied = false;
  };

  void Start(const lasp::v1::Assignment& assignment);
  void Drain(Rank* rank, absl::Duration grace, const std::string& reason);
  void Kill(Rank* rank, const std::string& reason);
  void KillAfter(Rank* rank, absl::Duration delay, const std::string& reason);
  void Hear(const RankProcessPtr& process, const lasp::internal::v1::FromRank& message);
  void Reap(const RankProcessPtr& process, int wait_status);
  void Tell(lasp::v1::RankExited exited);
  const lasp::v1::RankExited* FindEnded(const lasp::v1::Fence& fence) const;
  Rank* Find(const lasp::v1::Fence& fence);
  Rank* Find(const RankProcessPtr& process);

  Context* const context_;
  RankField* const field_;
  const std::string worker_id_;
  const int slots_;
  worker::RankObserver* const observer_;
  const Defer defer_;
  Random random_;
  // By slot.
  std::map<int, Rank> ranks_;
  std::map<int, lasp::v1::Assignment> waiting_;
  std::deque<lasp::v1::RankExited> ended_;
};

}  // namespace lasp::simulation
