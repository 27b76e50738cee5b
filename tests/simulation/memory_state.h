// The store's contents in memory: what SqliteState holds on disk, a hundred times faster.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tests/simulation/durable_state.h"

namespace lasp::simulation {

class MemoryState final : public DurableState {
 public:
  absl::Status Apply(const std::vector<server::Mutation>& mutations) override;
  absl::StatusOr<server::StoreContents> Load() override;
  absl::StatusOr<std::vector<lasp::v1::Transition>> Transitions(int64_t job_id, int limit) override;
  absl::StatusOr<std::vector<server::StoredTransition>> LatestTransitions(int limit) override;

 private:
  struct Job {
    server::JobViewPtr view;
    std::map<int64_t, lasp::v1::Transition> transitions;
    // By generation and rank.
    std::map<std::pair<int64_t, int>, int> exits;
    std::string gemm_record;
    // By step and generation.
    std::map<std::pair<int64_t, int64_t>, lasp::v1::Checkpoint> checkpoints;
    std::map<std::pair<int64_t, int64_t>, std::map<int, lasp::v1::ShardWritten>> shards;
    std::map<int64_t, lasp::v1::StepMetrics> steps;
  };

  void Write(const server::PutJob& mutation);
  void Write(const server::DeleteJob& mutation);
  void Write(const server::AddTransition& mutation);
  void Write(const server::AddGeneration& mutation);
  void Write(const server::PutRankExit& mutation);
  void Write(const server::PutGemmRecord& mutation);
  void Write(const server::PutCheckpoint& mutation);
  void Write(const server::DeleteCheckpoint& mutation);
  void Write(const server::AddCheckpointShard& mutation);
  void Write(const server::PutCheckpointRemoval& mutation);
  void Write(const server::DeleteCheckpointRemoval& mutation);
  void Write(const server::PutSteps& mutation);
  void Write(const server::PutWorker& mutation);
  void Write(const server::DeleteWorker& mutation);
  void Write(const server::PutWorkerFailure& mutation);
  void Write(const server::DeleteWorkerFailures& mutation);
  void Write(const server::PutRequest& mutation);
  void Write(const server::ExpireRequests& mutation);
  void Write(const server::CompactTombstones& mutation);
  void Write(const server::EndAdoption& mutation);
  // The audit log is no part of what a start reads.
  void Write(const server::AddAuditRecord& mutation);
  void Write(const server::TrimAudit& mutation);

  Job* Find(int64_t job_id);

  std::map<int64_t, Job> jobs_;
  std::map<int64_t, server::PutCheckpointRemoval> checkpoint_removals_;
  std::map<std::string, server::PutWorker> workers_;
  // Oldest first.
  std::vector<server::PutWorkerFailure> worker_failures_;
  std::vector<server::PutRequest> requests_;
  std::map<int64_t, std::string> tombstones_;
  int64_t compacted_revision_ = 0;
  int64_t last_job_id_ = 0;
  int64_t runs_ = 0;
};

}  // namespace lasp::simulation
