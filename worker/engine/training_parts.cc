#include "worker/engine/training_parts.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"
#include "worker/engine/chunk_choice.h"
#include "worker/engine/strategies.h"
#include "worker/engine/updated_ranges.h"

namespace lasp::worker {
namespace {

ModelConfig OwnConfig(ModelConfig config, const lasp::v1::ParallelismSpec& spec,
                      const ProcessGrid& grid) {
  config.tensor_ranks = TensorRanks(spec);
  config.tensor_rank = config.tensor_ranks > 1 ? grid.sp_rank() : 0;
  return config;
}

// What is said of `refused`, of which so much was planned.
absl::Status TooLarge(const absl::Status& refused, const MemoryBill& planned, bool could_shard) {
  return absl::Status(
      refused.code(),
      absl::StrCat(refused.message(), " (", planned.ToString(),
                   "): use more ranks, or a smaller model, data.sequence_length or "
                   "micro_batch_size",
                   could_shard ? ", or parallelism.data_parallel.method ZERO3" : ""));
}

}  // namespace

TrainingParts::TrainingParts(const TrainerOptions* options)
    : options_(*options),
      whole_config_(ModelConfig::FromSpec(options_.spec.model())),
      layout_(whole_config_),
      config_(OwnConfig(whole_config_, options_.spec.parallelism(), options_.grid)),
      own_layout_(config_),
      shards_(config_),
      chunks_(options_.train_data->whole()) {}

absl::StatusOr<std::unique_ptr<TrainingParts>> TrainingParts::Create(
    const TrainerOptions* options) {
  auto parts = std::unique_ptr<TrainingParts>(new TrainingParts(options));
  if (Streams(options->spec)) {
    if (options->wrap == nullptr) {
      return absl::FailedPreconditionError(
          "spec.memory.activations STREAM needs a communicator for the states between "
          "macro-chunks");
    }
    LASP_RETURN_IF_ERROR(parts->ChooseChunks());
  }
  LASP_RETURN_IF_ERROR(parts->Allocate());
  return parts;
}

absl::Status TrainingParts::ChooseChunks() {
  const auto chunks_of = [this](int64_t tokens) {
    return MacroChunks(options_.spec.data().sequence_length(), options_.grid.sp_size(), tokens);
  };
  int64_t tokens = options_.spec.memory().stream_chunk_tokens();
  if (tokens > 0) {
    chunks_ = chunks_of(tokens);
    return absl::OkStatus();
  }
  tokens = kCpuSliceTokens;
  if (const std::optional<int64_t> free = options_.backend->FreeBytes(); free.has_value()) {
    absl::Status status;
    tokens = MostSliceTokens(UsableBytes(*free), [&](int64_t tried) {
      chunks_ = chunks_of(tried);
      Arena plan;
      status.Update(TakeMemory(plan));
      return plan.used_bytes();
    });
    LASP_RETURN_IF_ERROR(status);
  }
  LASP_ASSIGN_OR_RETURN(tokens, LeastOf(tokens, *options_.backend, *options_.world));
  chunks_ = chunks_of(tokens);
  return absl::OkStatus();
}

absl::Status TrainingParts::Allocate() {
  Arena plan;
  LASP_RETURN_IF_ERROR(TakeMemory(plan));
  absl::StatusOr<Arena> arena = Arena::Create(*options_.backend, plan.used_bytes());
  if (!arena.ok()) {
    return TooLarge(arena.status(), plan.bill(),
                    parallel_->replicates() && options_.grid.world_size() > 1);
  }
  arena_ = *std::move(arena);
  LASP_RETURN_IF_ERROR(TakeMemory(arena_));
  for (Communicator* const group : {options_.world, options_.sp, options_.shards, options_.wrap}) {
    if (group != nullptr) {
      LASP_RETURN_IF_ERROR(group->Register(arena_.whole()));
    }
  }
  return absl::OkStatus();
}

absl::Status TrainingParts::TakeMemory(Arena& arena) {
  // Not before what of the one before is under way has ended.
  parallel_.reset();
  // Before what it refers to.
  model_.reset();
  LASP_RETURN_IF_ERROR(TakeParameters(arena));
  upload_ = std::make_unique<BatchUpload>(
      BatchUpload::Options{.backend = options_.backend,
                           .sequences = options_.spec.micro_batch_size(),
                           .sp_rank = options_.grid.sp_rank(),
                           .sp_size = options_.grid.sp_size(),
                           .packs = options_.packs()},
      chunks_, arena);
  control_ = std::make_unique<StepControl>(options_.backend, arena);
  LASP_RETURN_IF_ERROR(ChooseAttention());
  LASP_RETURN_IF_ERROR(TakeModel(arena));
  optimizer_ =
      std::make_unique<AdamW>(options_.spec.optimizer(), options_.backend, parallel_->masters(),
                              UpdatedRanges(own_layout_.Ranges(), parallel_->owned()), arena);
  if (!shards_.column_cuts().empty() && !options_.checkpoint_root.empty()) {
    staging_ = std::make_unique<RowStaging>(
        shards_.column_cuts(), tensors(), options_.backend,
        RowStaging::Ranks{.group = options_.shards,
                          .replicas = options_.replicas,
                          .owned = parallel_->owns_all() ? std::nullopt : OwnedShares(*parallel_)},
        arena);
  }
  return absl::OkStatus();
}

absl::Status TrainingParts::TakeParameters(Arena& arena) {
  LASP_ASSIGN_OR_RETURN(parallel_, CreateDataParallel(options_.spec.parallelism().data_parallel(),
                                                      {.backend = options_.backend,
                                                       .world = options_.world,
                                                       .shards = options_.shards,
                                                       .replicas = options_.replicas,
                                                       .units = own_layout_.units()},
                                                      arena));
  if (!config_.learned_theta) {
    return absl::OkStatus();
  }
  if (parallel_->owns_all()) {
    theta_ = own_layout_.Bind(parallel_->masters()).blocks[0].theta;
  } else {
    whole_theta_ = arena.Take(MemoryUse::kWeights, options_.backend->accumulation_type(),
                              config_.heads, config_.head_size());
    theta_ = whole_theta_.Rows(config_.own_heads() * config_.tensor_rank, config_.own_heads());
  }
  return absl::OkStatus();
}

absl::Status TrainingParts::ChooseAttention() {
  attention_ = options_.attention;
  if (attention_ == nullptr) {
    LASP_ASSIGN_OR_RETURN(owned_attention_,
                          CreateSequenceParallel(options_.spec, options_.backend, options_.sp));
    attention_ = owned_attention_.get();
  }
  if (Streams(options_.spec) && attention_->state_carrying() == StateCarrying::kNone) {
    return absl::InvalidArgumentError(
        "spec.memory.activations STREAM needs a sequence parallelism whose states go on from one "
        "macro-chunk to the next: choose LASP, LASP2, ALL_SCAN, ULYSSES or MEGATRON_SP");
  }
  if (config_.has_softmax() && attention_->softmax() == nullptr) {
    return absl::InvalidArgumentError(
        "spec.model.layer_pattern has layers of softmax attention, which this device does not "
        "compute: choose L, or device CPU");
  }
  return absl::OkStatus();
}

absl::Status TrainingParts::TakeModel(Arena& arena) {
  Backend* const backend = options_.backend;
  const MicroBatchShape shape{.sequences = options_.spec.micro_batch_size(),
                              .tokens = chunks_.slice_tokens(),
                              .last = chunks_.last_slices()};
  LASP_ASSIGN_OR_RETURN(
      activations_, ActivationMemory::Take(PlanOf(options_.spec.memory(), chunks_.count()), config_,
                                           shape, backend, *attention_, options_.wrap, arena));
  model_ = std::make_unique<TransNormer>(
      config_, shape, activations_.options(), &own_layout_,
      ParameterTensors{.parallel = parallel_.get(), .learned_theta = theta_}, backend, attention_,
      arena);
  sweep_ = std::make_unique<SequenceSweep>(backend, model_.get(), activations_.carried(),
                                           chunks_.count());
  return absl::OkStatus();
}

PlacesOf TrainingParts::places() const {
  return [this](const TensorShare& own) { return shards_.PlacesOf(own); };
}

absl::Status TrainingParts::SpreadWeights() {
  LASP_RETURN_IF_ERROR(parallel_->SpreadWeights());
  if (!config_.learned_theta || parallel_->owns_all()) {
    return absl::OkStatus();
  }
  const auto theta = std::find_if(layout_.parameters().begin(), layout_.parameters().end(),
                                  [](const Parameter& parameter) { return !parameter.decays; });
  return GatherOwned(
      *parallel_, *options_.backend, places(),
      [this](const OwnedRange& range) {
        return parallel_->masters().Columns(range.share.local, range.share.count);
      },
      theta->offset, whole_theta_);
}

}  // namespace lasp::worker
