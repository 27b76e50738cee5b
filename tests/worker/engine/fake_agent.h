// Starts real rank processes and speaks to them as an agent and a coordinator would.
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "lasp/internal/v1/rank_channel.pb.h"
#include "lasp/v1/training_spec.pb.h"
#include "lasp/v1/worker_service.pb.h"
#include "proto/rpc/mutex.h"
#include "worker/engine/rank_channel.h"

namespace lasp::worker {

// What one rank said and how it ended.
struct RankRecord {
  bool ready = false;
  std::string gemm_record;
  std::vector<lasp::internal::v1::RankStep> steps;
  std::vector<lasp::v1::RankStatus::Phase> phases;
  std::vector<lasp::v1::ShardWritten> shards;
  lasp::internal::v1::CheckpointTotals checkpoint_totals;
  bool finished = false;
  lasp::internal::v1::RankFinished end;
  std::string address;
};

// The program of that name of this build.
std::string PathOf(const std::string& program);

class FakeAgent {
 public:
  struct Options {
    lasp::v1::TrainingSpec spec;
    std::vector<std::string> path_roots = {};
    std::string dump_directory = {};
    int threads = 1;
    std::string gemm_record = {};
    // See Setup.
    int64_t generation = 1;
    std::string checkpoint_root = {};
    std::string checkpoint_folder = {};
    std::optional<lasp::v1::CheckpointReference> restore_from = {};
    std::string memory_root = {};
    std::optional<lasp::v1::Rebuild> rebuild = {};
    // lasp-rank-cuda instead of lasp-rank, each rank with what CUDA_VISIBLE_DEVICES is to be: a
    // GPU, or an empty string.
    std::vector<std::string> gpus = {};
  };

  // Fills the spec's defaults and starts sp * dp ranks.
  explicit FakeAgent(Options options);
  // Kills what still runs.
  ~FakeAgent();

  int world_size() const { return static_cast<int>(ranks_.size()); }

  pid_t pid(int rank) const { return ranks_[rank]->pid; }

  // Waits for every address, sends them around, waits until all are ready, and says start. False
  // when a rank ends before.
  bool Begin(absl::Duration timeout = absl::Seconds(60));
  bool WaitForAddresses(absl::Duration timeout = absl::Seconds(60));
  void SendAddresses();
  bool WaitForReady(absl::Duration timeout = absl::Seconds(60));
  void SendStart();
  void Drain(int rank);
  void CloseChannel(int rank);
  // Waits until `rank` has said so much of its shards.
  bool WaitForShards(int rank, size_t count, absl::Duration timeout = absl::Seconds(120));
  // Waits until `rank` has reported `step`. False when it ended before or the time ran out.
  bool WaitForStep(int rank, int64_t step, absl::Duration timeout = absl::Seconds(120));
  // The exit code of a rank's process, 128 + n after signal n, or -1 when it still runs at the end
  // of `timeout` (it is then killed).
  int WaitForExit(int rank, absl::Duration timeout = absl::Seconds(120));
  RankRecord record(int rank);

 private:
  struct Rank {
    pid_t pid = -1;
    bool reaped = false;
    int exit_code = -1;
    std::unique_ptr<RankChannel> channel;
    std::thread reader;
    RankRecord record;
    bool closed = false;
  };

  void Launch(int rank);
  void Read(int rank);
  template <typename Condition>
  bool WaitUntil(absl::Duration timeout, Condition condition);

  Options options_;
  Mutex mutex_;
  CondVar changed_;
  std::vector<std::unique_ptr<Rank>> ranks_;  // their records and ends: guarded by mutex_
};

}  // namespace lasp::worker
