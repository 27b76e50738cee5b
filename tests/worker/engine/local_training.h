// A whole training run of a small world in one process.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lasp/internal/v1/rank_channel.pb.h"
#include "lasp/v1/training_spec.pb.h"
#include "lasp/v1/worker_service.pb.h"
#include "tests/worker/engine/small_spec.h"
#include "tests/worker/parallel/local_ranks.h"
#include "worker/engine/drain_request.h"
#include "worker/engine/train_loop.h"
#include "worker/parallel/sequence_parallel.h"

namespace lasp::worker {

struct LocalTrainingOptions {
  lasp::v1::TrainingSpec spec;  // its SP and DP sizes make the world
  std::vector<std::string> path_roots;
  std::string dump_directory;
  // Where checkpoint_folder is given, checkpoints are written; see Setup.
  std::string checkpoint_root = {};
  std::string checkpoint_folder = {};
  std::optional<lasp::v1::CheckpointReference> restore_from = {};
  const ModelFolder* initial_weights = nullptr;
  // Where given, every rank leaves its state there at the end, or where it failed; see Setup.
  std::string memory_root = {};
  std::optional<lasp::v1::Rebuild> rebuild = {};
  int64_t generation = 1;
  // Of all ranks.
  ProgressClock* progress = nullptr;
  int64_t keep_parameters_every = 0;  // steps; 0: only those after the last are kept
  std::function<absl::StatusOr<std::unique_ptr<Backend>>()> create_backend;  // null: the CPU's
  // Runs the ranks instead of RunLocalRanks, on their GPUs for example.
  std::function<std::vector<absl::Status>(int sp_size, int dp_size,
                                          const std::function<absl::Status(LocalRank&)>& body)>
      run_ranks = {};
  // Called by each rank's training thread after a step.
  std::function<void(int rank, const lasp::internal::v1::RankStep& step, DrainRequest& drain)>
      on_step;
  // The same when a phase begins.
  std::function<void(int rank, lasp::v1::RankStatus::Phase phase, DrainRequest& drain)> on_phase =
      {};
  // Called by each rank's training thread before the first step and after every one.
  std::function<void(int rank, int64_t step, const Trainer& trainer, Backend& backend)> on_tensors =
      {};
  // Called by each rank's writing thread.
  std::function<void(const lasp::v1::ShardWritten& shard)> on_shard = {};
  // Wraps the strategy each rank uses.
  std::function<std::unique_ptr<SequenceParallel>(std::unique_ptr<SequenceParallel>, Backend*)>
      wrap_attention;
};

// What one rank went through.
struct LocalTrainingRecord {
  absl::Status status;
  TrainEnd end;
  std::vector<lasp::internal::v1::RankStep> steps;
  std::vector<float> parameters;  // OwnedValues after the last step
  std::vector<std::vector<float>> kept_parameters;
  std::vector<lasp::v1::ShardWritten> shards;
  lasp::internal::v1::CheckpointTotals checkpoint_totals;
  lasp::v1::StateLeft left;
  // Of the world's communicator, when every rank has ended.
  int64_t world_sent_bytes = 0;
};

// A tensor laid out as the trainer's parameters, in the order of the layout: zeros where another
// rank saves them.
std::vector<float> OwnedValues(const Trainer& trainer, Tensor tensor, Backend& backend);

// One record a rank.
std::vector<LocalTrainingRecord> TrainLocally(LocalTrainingOptions options);

// Rank 0's losses and gradient norms.
std::vector<double> Losses(const std::vector<LocalTrainingRecord>& records);
std::vector<double> GradientNorms(const std::vector<LocalTrainingRecord>& records);

}  // namespace lasp::worker
