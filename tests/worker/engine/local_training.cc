#include "tests/worker/engine/local_training.h"

#include <algorithm>

#include "proto/rpc/status_macros.h"
#include "proto/spec/spec_defaults.h"
#include "worker/data/batch_source.h"
#include "worker/engine/strategies.h"

namespace lasp::worker {
namespace {

std::vector<float> Narrowed(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}

class Recorder : public TrainObserver {
 public:
  Recorder(const LocalTrainingOptions& options, LocalRank* rank, const Trainer* trainer,
           DrainRequest* drain, LocalTrainingRecord* record)
      : options_(options), rank_(*rank), trainer_(*trainer), drain_(*drain), record_(*record) {}

  absl::Status OnPhase(lasp::v1::RankStatus::Phase phase) override {
    if (options_.on_phase) {
      options_.on_phase(rank_.grid.rank(), phase, drain_);
    }
    return absl::OkStatus();
  }

  absl::Status OnStep(const lasp::internal::v1::RankStep& step) override {
    record_.steps.push_back(step);
    const int64_t interval = options_.keep_parameters_every;
    if (interval > 0 && step.step() % interval == 0) {
      record_.kept_parameters.push_back(Parameters());
    }
    if (options_.on_tensors) {
      options_.on_tensors(rank_.grid.rank(), step.step(), trainer_, *rank_.backend);
    }
    if (options_.on_step) {
      options_.on_step(rank_.grid.rank(), step, drain_);
    }
    return absl::OkStatus();
  }

  absl::Status OnCheckpoints(const lasp::internal::v1::CheckpointTotals& totals) override {
    record_.checkpoint_totals = totals;
    return absl::OkStatus();
  }

  // One at a time, and the last before the loop ends.
  void OnShard(const lasp::v1::ShardWritten& shard) override {
    record_.shards.push_back(shard);
    if (options_.on_shard) {
      options_.on_shard(shard);
    }
  }

  std::vector<float> Parameters() const {
    return OwnedValues(trainer_, trainer_.parameters(), *rank_.backend);
  }

 private:
  const LocalTrainingOptions& options_;
  LocalRank& rank_;
  const Trainer& trainer_;
  DrainRequest& drain_;
  LocalTrainingRecord& record_;
};

absl::Status TrainOne(const LocalTrainingOptions& options, LocalRank& rank,
                      LocalTrainingRecord* record) {
  const DataCoordinates coordinates{.sp_rank = rank.grid.sp_rank(),
                                    .sp_size = rank.grid.sp_size(),
                                    .dp_rank = rank.grid.dp_rank(),
                                    .dp_size = rank.grid.dp_size()};
  LASP_ASSIGN_OR_RETURN(const auto train, BatchSource::Open(options.spec, options.path_roots,
                                                            coordinates, DataSplit::kTrain));
  std::unique_ptr<BatchSource> eval;
  if (options.spec.data().eval_paths_size() > 0) {
    LASP_ASSIGN_OR_RETURN(
        eval, BatchSource::Open(options.spec, options.path_roots, coordinates, DataSplit::kEval));
  }
  std::unique_ptr<SequenceParallel> attention;
  if (options.wrap_attention) {
    attention = options.wrap_attention(CreateLasp(rank.backend, rank.sp), rank.backend);
  }
  DrainRequest drain;
  const bool hybrid = GroupsShard(options.spec.parallelism());
  const Trainer::Options trainer_options{.spec = options.spec,
                                         .grid = rank.grid,
                                         .backend = rank.backend,
                                         .sp = rank.sp,
                                         .world = rank.world,
                                         .shards = hybrid ? rank.shards : nullptr,
                                         .replicas = hybrid ? rank.dp : nullptr,
                                         .wrap = rank.wrap,
                                         .train_data = train.get(),
                                         .eval_data = eval.get(),
                                         .drain = &drain,
                                         .checkpoint_root = options.checkpoint_root,
                                         .restore_from = options.restore_from,
                                         .memory_root = options.memory_root,
                                         .rebuild = options.rebuild,
                                         .uid = "uid",
                                         .progress = options.progress,
                                         .initial_weights = options.initial_weights,
                                         .dump_directory = options.dump_directory,
                                         .attention = attention.get()};
  LASP_ASSIGN_OR_RETURN(const auto trainer, Trainer::Create(trainer_options));
  Recorder recorder(options, &rank, trainer.get(), &drain, record);
  std::unique_ptr<Checkpoints> checkpoints;
  if (!options.checkpoint_folder.empty()) {
    lasp::v1::Fence fence;
    fence.set_generation(options.generation);
    fence.set_rank(rank.grid.rank());
    LASP_ASSIGN_OR_RETURN(
        checkpoints,
        Checkpoints::Create({.writer = {.root = options.checkpoint_root,
                                        .folder = options.checkpoint_folder,
                                        .fence = fence,
                                        .world_size = rank.grid.world_size(),
                                        .layout = &trainer->layout(),
                                        .backend = rank.backend,
                                        .tensors = trainer->tensors(),
                                        .saved = trainer->saved_shares(),
                                        .staging = trainer->staging(),
                                        .on_shard =
                                            [&recorder](const lasp::v1::ShardWritten& shard) {
                                              recorder.OnShard(shard);
                                            }},
                             .spec = options.spec.checkpoint(),
                             .restored_step = trainer->checkpointed_step()}));
  }
  if (options.on_tensors) {
    options.on_tensors(rank.grid.rank(), trainer->restored().step(), *trainer, *rank.backend);
  }
  TrainLoop loop(trainer_options, TrainLoop::Parts{.generation = options.generation,
                                                   .trainer = trainer.get(),
                                                   .checkpoints = checkpoints.get(),
                                                   .observer = &recorder});
  const absl::StatusOr<TrainEnd> end = loop.Run();
  if (end.ok()) {
    record->end = *end;
    LASP_RETURN_IF_ERROR(rank.world->Barrier().Wait());
    record->world_sent_bytes = rank.world->counters().sent_bytes;
    record->parameters = recorder.Parameters();
  }
  if (!options.memory_root.empty()) {
    lasp::v1::Fence fence;
    fence.set_uid("uid");
    fence.set_generation(options.generation);
    fence.set_rank(rank.grid.rank());
    LASP_ASSIGN_OR_RETURN(record->left, trainer->LeaveState(fence));
    loop.AddRecentSteps(&record->left);
  }
  return end.status();
}

}  // namespace

std::vector<float> OwnedValues(const Trainer& trainer, Tensor tensor, Backend& backend) {
  std::vector<float> local(static_cast<size_t>(tensor.count()));
  if (tensor.dtype == DType::kFloat64) {
    std::vector<double> wide(local.size());
    backend.CopyToHost(tensor, wide.data());
    local = Narrowed(wide);
  } else {
    backend.CopyToHost(tensor, local.data());
  }
  const auto shares = trainer.saved_shares();
  if (!shares.has_value()) {
    return local;
  }
  std::vector<float> values(static_cast<size_t>(trainer.layout().count()));
  for (const TensorShare& share : *shares) {
    std::copy_n(local.begin() + share.local, share.count, values.begin() + share.begin);
  }
  return values;
}

std::vector<LocalTrainingRecord> TrainLocally(LocalTrainingOptions options) {
  FillDefaults(&options.spec);
  const int sp_size = options.spec.parallelism().sequence_parallel().size();
  const int dp_size = options.spec.parallelism().data_parallel().size();
  std::vector<LocalTrainingRecord> records(static_cast<size_t>(sp_size * dp_size));
  const auto body = [&](LocalRank& rank) {
    return TrainOne(options, rank, &records[rank.grid.rank()]);
  };
  const std::vector<absl::Status> statuses =
      options.run_ranks
          ? options.run_ranks(sp_size, dp_size, body)
          : RunLocalRanks(
                {.sp_size = sp_size, .dp_size = dp_size, .create_backend = options.create_backend},
                body);
  for (size_t rank = 0; rank < records.size(); ++rank) {
    records[rank].status = statuses[rank];
  }
  return records;
}

std::vector<double> Losses(const std::vector<LocalTrainingRecord>& records) {
  std::vector<double> losses;
  for (const auto& step : records[0].steps) {
    losses.push_back(step.metrics().loss());
  }
  return losses;
}

std::vector<double> GradientNorms(const std::vector<LocalTrainingRecord>& records) {
  std::vector<double> norms;
  for (const auto& step : records[0].steps) {
    norms.push_back(step.metrics().gradient_norm());
  }
  return norms;
}

}  // namespace lasp::worker
