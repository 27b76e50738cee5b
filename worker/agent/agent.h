// The agent between its coordinator and its ranks: hands the one's orders to the supervisor and the
// others' news to the outbox. It knows no transport, and works on while there is no coordinator.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "lasp/v1/worker_service.pb.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/disk_space.h"
#include "proto/rpc/mutex.h"
#include "worker/agent/outbox.h"
#include "worker/agent/rank_keeper.h"
#include "worker/agent/rank_logs.h"
#include "worker/agent/rank_observer.h"
#include "worker/agent/supervisor.h"
#include "worker/telemetry/agent_metrics.h"
#include "worker/telemetry/rank_metrics.h"

namespace lasp::worker {

struct AgentOptions {
  std::string worker_id;
  // After it, ranks that were told to drain are killed.
  absl::Duration drain_timeout = absl::Minutes(2);
  // What it says of its GPUs.
  lasp::v1::HostReport host_report = {};
  SupervisorOptions supervisor = {};
  ReportLimits reports = {};
};

// Thread-safe.
class Agent : public RankObserver {
 public:
  // All pointers outlive it.
  Agent(AgentOptions options, const RankLedger* ledger, RankLogs* logs, RankMetrics* rank_metrics,
        AgentMetrics* agent_metrics, const Clock* clock);
  // With ranks that somebody else keeps than a supervisor, and without a thread. `keep` is called
  // once, by the constructor.
  using KeeperFactory = std::function<std::unique_ptr<RankKeeper>(RankObserver*)>;
  Agent(AgentOptions options, const KeeperFactory& keep, RankLogs* logs, RankMetrics* rank_metrics,
        AgentMetrics* agent_metrics, const Clock* clock);
  ~Agent() override;

  // The transport's side: a stream begins, messages go and come, a stream ends.
  void BeginStream();
  std::optional<lasp::v1::ConnectRequest> NextMessage(absl::Duration max_wait);
  void Handle(const lasp::v1::ConnectResponse& response);
  void EndStream();

  void Wake() { outbox_.Wake(); }

  // Whether the coordinator has welcomed the present stream.
  bool connected() const { return outbox_.welcomed(); }

  // Takes no more ranks and has those it has leave at a step boundary.
  void Drain();

  // For the next heartbeats.
  void SetWorkDisk(const DiskSpace& disk);

  // Kills them.
  void Kill(const std::string& reason) { ranks_->KillAll(reason); }

  bool WaitUntilNoRanks(absl::Duration timeout) const { return ranks_->WaitUntilEmpty(timeout); }

  // Whether the coordinator has every report and every line of the logs.
  bool AllReported() const;

  // Whether it has every report. They are in memory alone, and end with this process.
  bool AllReportsStored() const { return outbox_.AllAcknowledged(); }

  void OnStarted(const lasp::v1::Assignment& assignment) override;
  void OnAddress(const lasp::v1::RankAddress& address) override;
  void OnReady(const lasp::v1::RankReady& ready) override;
  void OnStep(const lasp::v1::Fence& fence, const lasp::internal::v1::RankStep& step) override;
  void OnShard(const lasp::v1::ShardWritten& shard) override;
  void OnCheckpoints(const lasp::v1::Fence& fence,
                     const lasp::internal::v1::CheckpointTotals& totals) override;
  void OnEnded(const lasp::v1::RankExited& exited) override;

 private:
  lasp::v1::Heartbeat MakeHeartbeat() const;
  void HandleWelcome(const lasp::v1::Welcome& welcome);
  void HandleAssignment(const lasp::v1::Assignment& assignment);
  // Whether a rank of this fence lives here, or waits for its slot.
  bool Holds(const lasp::v1::Fence& fence) const;

  const AgentOptions options_;
  const std::string incarnation_;
  RankLogs* const logs_;
  RankMetrics* const rank_metrics_;
  AgentMetrics* const agent_metrics_;
  const Clock* const clock_;
  Outbox outbox_;
  mutable Mutex mutex_;
  bool draining_ GUARDED_BY(mutex_) = false;
  DiskSpace work_disk_ GUARDED_BY(mutex_);
  // Last, so that it is gone before what it tells of.
  std::unique_ptr<RankKeeper> ranks_;
};

}  // namespace lasp::worker
