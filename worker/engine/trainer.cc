#include "worker/engine/trainer.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/status_macros.h"
#include "worker/checkpoint/initial_weights.h"
#include "worker/checkpoint/left_state.h"
#include "worker/checkpoint/rebuild.h"
#include "worker/checkpoint/restore.h"
#include "worker/engine/chunk_choice.h"
#include "worker/engine/step_dump.h"
#include "worker/engine/strategies.h"
#include "worker/engine/updated_ranges.h"
#include "worker/model/parameter_init.h"

namespace lasp::worker {
namespace {

// Places in control_. The first, up to the witness, are summed over the world.
constexpr int64_t kLossSum = 0;
constexpr int64_t kLabelCount = 1;
// What every rank says of a step lies side by side: its votes, and that it takes part.
constexpr int64_t kDrain = 2;
constexpr int64_t kCheckpointDue = 3;
constexpr int64_t kCheckpointBusy = 4;
constexpr int64_t kSums = 5;
constexpr int64_t kUpdate = kSums;
constexpr int64_t kWitness = kUpdate;
static_assert(offsetof(kernels::UpdateControl, witness) == 0);
static_assert(offsetof(kernels::UpdateControl, witness_wanted) == sizeof(double));
constexpr int64_t kUpdateSize = sizeof(kernels::UpdateControl) / sizeof(double);
constexpr int64_t kSumOfSquares = kUpdate + kUpdateSize;
constexpr int64_t kControlSize = kSumOfSquares + 1;

ModelConfig OwnConfig(ModelConfig config, const lasp::v1::ParallelismSpec& spec,
                      const ProcessGrid& grid) {
  config.tensor_ranks = TensorRanks(spec);
  config.tensor_rank = config.tensor_ranks > 1 ? grid.sp_rank() : 0;
  return config;
}

// The places of all ranges, in their order.
std::vector<TensorShare> PlacesOfAll(const ParameterShards& shards,
                                     const std::vector<TensorShare>& ranges) {
  std::vector<TensorShare> all;
  for (const TensorShare& range : ranges) {
    const std::vector<TensorShare> places = shards.PlacesOf(range);
    all.insert(all.end(), places.begin(), places.end());
  }
  return all;
}

std::unique_ptr<RowStaging> MakeStaging(const ParameterShards& shards,
                                        const Trainer::Options& options,
                                        const TrainingTensors& tensors,
                                        const DataParallel& parallel, Arena& arena) {
  return std::make_unique<RowStaging>(
      shards.column_cuts(), tensors, options.backend,
      RowStaging::Ranks{.group = options.shards,
                        .replicas = options.replicas,
                        .owned = parallel.owns_all() ? std::nullopt : OwnedShares(parallel)},
      arena);
}

}  // namespace

Trainer::Trainer(Options options)
    : options_(std::move(options)),
      model_config_(ModelConfig::FromSpec(options_.spec.model())),
      layout_(model_config_),
      own_config_(OwnConfig(model_config_, options_.spec.parallelism(), options_.grid)),
      own_layout_(own_config_),
      shards_(own_config_),
      schedule_(options_.spec.optimizer(), options_.spec.max_steps()),
      chunks_(options_.train_data->whole()),
      label_count_(static_cast<double>(options_.spec.global_batch_size()) *
                   static_cast<double>(options_.spec.data().sequence_length())) {}

bool Trainer::streams() const { return Streams(options_.spec); }

bool Trainer::packs() const {
  return options_.spec.data().documents() == lasp::v1::DataSpec::DOCUMENTS_PACKED;
}

absl::StatusOr<std::unique_ptr<Trainer>> Trainer::Create(Options options) {
  auto trainer = std::unique_ptr<Trainer>(new Trainer(std::move(options)));
  if (trainer->streams() && trainer->options_.wrap == nullptr) {
    return absl::FailedPreconditionError(
        "spec.memory.activations STREAM needs a communicator for the states between macro-chunks");
  }
  LASP_RETURN_IF_ERROR(trainer->ChooseChunks());
  Arena plan;
  LASP_RETURN_IF_ERROR(trainer->TakeMemory(plan));
  absl::StatusOr<Arena> arena = Arena::Create(*trainer->options_.backend, plan.used_bytes());
  if (!arena.ok()) {
    const bool could_shard =
        trainer->data_parallel_->replicates() && trainer->options_.grid.world_size() > 1;
    return absl::Status(
        arena.status().code(),
        absl::StrCat(arena.status().message(), " (", plan.bill().ToString(),
                     "): use more ranks, or a smaller model, data.sequence_length or "
                     "micro_batch_size",
                     could_shard ? ", or parallelism.data_parallel.method ZERO3" : ""));
  }
  trainer->arena_ = *std::move(arena);
  LASP_RETURN_IF_ERROR(trainer->TakeMemory(trainer->arena_));
  for (Communicator* const group : {trainer->options_.world, trainer->options_.sp,
                                    trainer->options_.shards, trainer->options_.wrap}) {
    if (group != nullptr) {
      LASP_RETURN_IF_ERROR(group->Register(trainer->arena_.whole()));
    }
  }
  LASP_RETURN_IF_ERROR(trainer->MakeState());
  trainer->losses_ =
      std::make_unique<LossWatch>(trainer->options_.spec.recovery().outlier_deviations(),
                                  std::vector<double>(trainer->restored_.recent_losses().begin(),
                                                      trainer->restored_.recent_losses().end()));
  LASP_RETURN_IF_ERROR(trainer->Rehearse());
  trainer->batches_ =
      std::make_unique<BatchPrefetcher>(trainer->options_.train_data, trainer->first_step(),
                                        trainer->options_.spec.max_steps(), trainer->chunks_);
  return trainer;
}

absl::Status Trainer::MakeState() {
  Backend& backend = *options_.backend;
  ProgressClock* const progress = options_.progress;
  const auto enter = [progress](ProgressClock::Section section) {
    if (progress != nullptr) {
      progress->Enter(section);
    }
  };
  const auto on_block = [progress] {
    if (progress != nullptr) {
      progress->Advance();
    }
  };
  const auto give_up = [this] { return options_.drain->requested(); };
  enter(ProgressClock::Section::kRestoring);
  if (options_.rebuild.has_value()) {
    LASP_ASSIGN_OR_RETURN(restored_, RebuildState({.memory_root = options_.memory_root,
                                                   .uid = options_.uid,
                                                   .rebuild = *options_.rebuild,
                                                   .layout = &layout_,
                                                   .backend = &backend,
                                                   .world = options_.world,
                                                   .tensors = tensors(),
                                                   .owned = owned_shares(),
                                                   .give_up = give_up,
                                                   .on_block = on_block}));
    TakeUpCounts();
  } else if (!options_.restore_from.has_value() && options_.initial_weights != nullptr) {
    LASP_RETURN_IF_ERROR(LoadInitialWeights({.folder = options_.initial_weights,
                                             .layout = &layout_,
                                             .backend = &backend,
                                             .world = options_.world,
                                             .masters = data_parallel_->masters(),
                                             .owned = owned_shares(),
                                             .give_up = give_up,
                                             .on_block = on_block}));
  } else if (!options_.restore_from.has_value()) {
    InitializeParameters(
        model_config_, layout_, options_.spec.seed(), backend,
        owned_shares().value_or(std::vector<TensorShare>{{.begin = 0, .count = layout_.count()}}),
        data_parallel_->masters());
  } else {
    LASP_ASSIGN_OR_RETURN(restored_, Restore({.root = options_.checkpoint_root,
                                              .reference = *options_.restore_from,
                                              .spec = options_.spec,
                                              .layout = &layout_,
                                              .backend = &backend,
                                              .world = options_.world,
                                              .tensors = tensors(),
                                              .owned = owned_shares(),
                                              .give_up = give_up,
                                              .on_block = on_block}));
    TakeUpCounts();
  }
  enter(ProgressClock::Section::kUntimed);
  for (const OwnedRange& range : data_parallel_->owned()) {
    const Tensor master = data_parallel_->masters()
                              .Columns(range.share.local, range.share.count)
                              .Reshape(1, range.share.count);
    if (range.weight.data != master.data) {
      backend.Convert(master, range.weight);
    }
  }
  return SpreadWeights();
}

absl::Status Trainer::SpreadWeights() {
  LASP_RETURN_IF_ERROR(data_parallel_->SpreadWeights());
  if (!model_config_.learned_theta || data_parallel_->owns_all()) {
    return absl::OkStatus();
  }
  const auto theta = std::find_if(layout_.parameters().begin(), layout_.parameters().end(),
                                  [](const Parameter& parameter) { return !parameter.decays; });
  return GatherOwned(
      *data_parallel_, *options_.backend, places(),
      [this](const OwnedRange& range) {
        return data_parallel_->masters().Columns(range.share.local, range.share.count);
      },
      theta->offset, whole_theta_);
}

PlacesOf Trainer::places() const {
  return [this](const TensorShare& own) { return shards_.PlacesOf(own); };
}

std::optional<std::vector<TensorShare>> Trainer::owned_shares() const {
  auto owned = OwnedShares(*data_parallel_);
  return owned.has_value() ? PlacesOfAll(shards_, *owned) : owned;
}

std::optional<std::vector<TensorShare>> Trainer::saved_shares() const {
  if (own_config_.tensor_ranks > 1) {
    std::vector<TensorShare> counted;
    for (const OwnedRange& range : data_parallel_->counted()) {
      counted.push_back(range.share);
    }
    counted = Without(shards_.column_cuts(), counted);
    return PlacesOfAll(shards_,
                       data_parallel_->owns_all()
                           ? PartOf(counted, options_.replicas->size(), options_.replicas->rank())
                           : counted);
  }
  auto owned = owned_shares();
  return owned.has_value() && options_.replicas != nullptr
             ? PartOf(*owned, options_.replicas->size(), options_.replicas->rank())
             : owned;
}

void Trainer::TakeUpCounts() {
  last_update_.updates = static_cast<double>(restored_.update_count());
  last_update_.skipped = static_cast<double>(restored_.skipped_count());
  last_update_.skipped_in_a_row = static_cast<double>(restored_.skipped_in_a_row());
  options_.backend->CopyFromHost(&last_update_, control_.Columns(kUpdate, kUpdateSize));
}

absl::StatusOr<lasp::v1::StateLeft> Trainer::LeaveState(const lasp::v1::Fence& fence) {
  if (options_.memory_root.empty() || options_.world->size() == 1) {
    return absl::FailedPreconditionError(options_.memory_root.empty()
                                             ? "the agent has no --memory_root"
                                             : "there is no other rank to take it up");
  }
  std::vector<TensorShare> shares;
  if (data_parallel_->replicates()) {
    shares.push_back(LeftShareOf(layout_.count(), options_.world->size(), options_.world->rank()));
  } else if (own_config_.tensor_ranks > 1) {
    return absl::FailedPreconditionError(
        "MEGATRON_SP shares the weights out: what a lost rank had is in its checkpoints only");
  } else if (options_.replicas != nullptr && options_.replicas->size() > 1) {
    shares = *owned_shares();
  } else {
    return absl::FailedPreconditionError(
        "each rank owns its share alone: that of a lost rank is in its checkpoints only");
  }
  // The device may have made an update of which the host has not heard.
  StepResult last;
  LASP_RETURN_IF_ERROR(ReadControl(&last));
  const auto step = static_cast<int64_t>(last_update_.updates + last_update_.skipped);
  if (step <= restored_.step()) {
    return absl::FailedPreconditionError("no step has been finished since the run began");
  }
  if (step > judged_step_) {
    JudgeLoss(&last);
  }
  ProgressClock* const progress = options_.progress;
  return worker::LeaveState({.memory_root = options_.memory_root,
                             .fence = fence,
                             .shares = std::move(shares),
                             .elements = layout_.count(),
                             .backend = options_.backend,
                             .tensors = tensors(),
                             .on_block =
                                 [progress] {
                                   if (progress != nullptr) {
                                     progress->Advance();
                                   }
                                 }},
                            StateAfter(step));
}

lasp::v1::TrainingState Trainer::StateAfter(int64_t step) const {
  lasp::v1::TrainingState state;
  state.set_step(step);
  state.set_update_count(static_cast<int64_t>(last_update_.updates));
  state.set_skipped_count(static_cast<int64_t>(last_update_.skipped));
  state.set_skipped_in_a_row(static_cast<int64_t>(last_update_.skipped_in_a_row));
  state.set_sequence_count(step * options_.spec.global_batch_size());
  for (const double loss : losses_->losses()) {
    state.add_recent_losses(loss);
  }
  return state;
}

absl::Status Trainer::TakeMemory(Arena& arena) {
  const lasp::v1::TrainingSpec& spec = options_.spec;
  Backend* const backend = options_.backend;
  const MicroBatchShape shape{.sequences = spec.micro_batch_size(),
                              .tokens = chunks_.slice_tokens(),
                              .last = chunks_.last_slices()};
  // Not before what of the one before is under way has ended.
  data_parallel_.reset();
  // Before what it refers to.
  model_.reset();
  LASP_ASSIGN_OR_RETURN(data_parallel_, CreateDataParallel(spec.parallelism().data_parallel(),
                                                           {.backend = backend,
                                                            .world = options_.world,
                                                            .shards = options_.shards,
                                                            .replicas = options_.replicas,
                                                            .units = own_layout_.units()},
                                                           arena));
  if (model_config_.learned_theta) {
    if (data_parallel_->owns_all()) {
      theta_ = own_layout_.Bind(data_parallel_->masters()).blocks[0].theta;
    } else {
      whole_theta_ = arena.Take(MemoryUse::kWeights, backend->accumulation_type(),
                                model_config_.heads, model_config_.head_size());
      theta_ = whole_theta_.Rows(own_config_.own_heads() * own_config_.tensor_rank,
                                 own_config_.own_heads());
    }
  }
  tokens_ = {.ids = arena.Take(MemoryUse::kWorkspace, DType::kInt32, shape.rows(), 1),
             .labels = arena.Take(MemoryUse::kWorkspace, DType::kInt32, shape.rows(), 1)};
  if (packs()) {
    document_marks_ = arena.Take(MemoryUse::kWorkspace, DType::kInt32, 1, 2 * MarksOf(0).words());
  }
  control_ = arena.Take(MemoryUse::kWorkspace, DType::kFloat64, 1, kControlSize);
  attention_ = options_.attention;
  if (attention_ == nullptr) {
    LASP_ASSIGN_OR_RETURN(owned_attention_, CreateSequenceParallel(spec, backend, options_.sp));
    attention_ = owned_attention_.get();
  }
  if (streams() && attention_->state_carrying() == StateCarrying::kNone) {
    return absl::InvalidArgumentError(
        "spec.memory.activations STREAM needs a sequence parallelism whose states go on from one "
        "macro-chunk to the next: choose LASP, LASP2, ALL_SCAN or ULYSSES");
  }
  if (model_config_.has_softmax() && attention_->softmax() == nullptr) {
    return absl::InvalidArgumentError(
        "spec.model.layer_pattern has layers of softmax attention, which this device does not "
        "compute: choose L, or device CPU");
  }
  LASP_ASSIGN_OR_RETURN(activations_,
                        ActivationMemory::Take(PlanOf(spec.memory(), chunks_.count()), own_config_,
                                               shape, backend, *attention_, options_.wrap, arena));
  model_ = std::make_unique<TransNormer>(
      own_config_, shape, activations_.options(), &own_layout_,
      ParameterTensors{.parallel = data_parallel_.get(), .learned_theta = theta_}, backend,
      attention_, arena);
  sweep_ = std::make_unique<SequenceSweep>(backend, model_.get(), activations_.carried(),
                                           chunks_.count());
  optimizer_ =
      std::make_unique<AdamW>(spec.optimizer(), backend, data_parallel_->masters(),
                              UpdatedRanges(own_layout_.Ranges(), data_parallel_->owned()), arena);
  if (!shards_.column_cuts().empty() && !options_.checkpoint_root.empty()) {
    staging_ = MakeStaging(shards_, options_, tensors(), *data_parallel_, arena);
  }
  return absl::OkStatus();
}

absl::Status Trainer::ChooseChunks() {
  if (!streams()) {
    return absl::OkStatus();
  }
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

absl::Status Trainer::Rehearse() {
  Backend& backend = *options_.backend;
  if (!backend.wants_rehearsal()) {
    return absl::OkStatus();
  }
  // Tokens and labels are zeros. What a step leaves, the next one writes anew or fills with zeros.
  backend.Rehearse(true);
  const int64_t micro_batches = std::min<int64_t>(2, options_.train_data->micro_batches_per_step());
  const int64_t passes = std::max(micro_batches, std::min<int64_t>(2, chunks_.pass_count()));
  if (CarriedStates* const carried = activations_.carried(); carried != nullptr) {
    carried->Begin();
    carried->TurnAround();
  }
  // Products of every size that some rank may come to, on all ranks.
  for (const int64_t tokens : {chunks_.slice_tokens(), chunks_.last_slices().CutShort()}) {
    const int64_t rows = options_.spec.micro_batch_size() * tokens;
    const TokenBatch batch{.ids = tokens_.ids.Rows(0, rows),
                           .labels = tokens_.labels.Rows(0, rows)};
    for (int64_t pass = 0; pass < passes && tokens > 0; ++pass) {
      LASP_RETURN_IF_ERROR(model_->ForwardForTraining(batch, TransNormer::States::kExchanged, 1,
                                                      control_.Columns(kLossSum, 1),
                                                      /*adds=*/pass > 0));
      LASP_RETURN_IF_ERROR(model_->Backward(batch, /*last=*/false));
    }
  }
  LASP_RETURN_IF_ERROR(backend.Synchronize());
  backend.Rehearse(false);
  return absl::OkStatus();
}

DocumentMarksLayout Trainer::MarksOf(int64_t chunk) const {
  return {.sequences = options_.spec.micro_batch_size(),
          .ranks = options_.grid.sp_size(),
          .slices = chunks_.SlicesOf(chunk)};
}

TokenBatch Trainer::Upload(const Batch& batch, int64_t chunk) {
  const auto rows = static_cast<int64_t>(batch.tokens.size());
  TokenBatch slice{.ids = tokens_.ids.Rows(0, rows),
                   .labels = tokens_.labels.Rows(0, rows),
                   .slices = chunks_.SlicesOf(chunk),
                   .first_position = chunks_.SliceBegin(chunk, options_.grid.sp_rank())};
  if (rows > 0) {
    options_.backend->CopyFromHost(batch.tokens.data(), slice.ids);
    options_.backend->CopyFromHost(batch.labels.data(), slice.labels);
  }
  if (!batch.document_marks.empty()) {
    const DocumentMarksLayout layout = MarksOf(chunk);
    const Tensor marks = document_marks_.Columns(0, 2 * layout.words());
    options_.backend->CopyFromHost(batch.document_marks.data(), marks);
    slice.documents = DocumentMarks(marks, layout, options_.grid.sp_rank());
  }
  return slice;
}

absl::Status Trainer::CountLabels(int64_t own) {
  const auto labels = static_cast<double>(own);
  const Tensor count = control_.Columns(kLabelCount, 1);
  options_.backend->CopyFromHost(&labels, count);
  LASP_RETURN_IF_ERROR(options_.world->AllReduceSum(count).Wait());
  options_.backend->CopyToHost(count, &label_count_);
  options_.backend->Fill(0, count);
  // Where every document is one token long nothing is predicted, and nothing lost.
  label_count_ = std::max(label_count_, 1.0);
  return absl::OkStatus();
}

absl::Status Trainer::Accumulate(int64_t step) {
  const int64_t micro_batches = options_.train_data->micro_batches_per_step();
  options_.backend->Fill(0, control_.Columns(0, kSums));
  options_.backend->Fill(0, control_.Columns(kSumOfSquares, 1));
  data_parallel_->BeginStep();
  // The count over the world is known before the first backward: of joined documents every position
  // of a training batch has a label.
  std::optional<Batch> first;
  if (packs()) {
    options_.backend->EnterPhase(Phase::kData);
    LASP_ASSIGN_OR_RETURN(first, batches_->Next());
    LASP_RETURN_IF_ERROR(CountLabels(first->step_label_count));
  }
  int64_t pass = 0;
  const auto fetch = [&](int64_t chunk) -> absl::StatusOr<TokenBatch> {
    // The prefetcher knows the order.
    if (!first.has_value()) {
      LASP_ASSIGN_OR_RETURN(first, batches_->Next());
    }
    Batch batch = *std::exchange(first, std::nullopt);
    const TokenBatch slice = Upload(batch, chunk);
    if (step == 1 && !options_.dump_directory.empty() && pass++ < chunks_.count()) {
      dumped_batches_.push_back(std::move(batch));
    }
    return slice;
  };
  for (int64_t micro_batch = 0; micro_batch < micro_batches; ++micro_batch) {
    pass = 0;
    LASP_RETURN_IF_ERROR(sweep_->Train(fetch, 1 / label_count_, control_.Columns(kLossSum, 1),
                                       /*adds=*/micro_batch > 0,
                                       /*last_micro_batch=*/micro_batch + 1 == micro_batches));
  }
  return absl::OkStatus();
}

absl::Status Trainer::Reduce(int64_t step, const Checkpoints* checkpoints) {
  const Checkpoints::Vote vote =
      checkpoints == nullptr ? Checkpoints::Vote{} : checkpoints->VoteAfter(step);
  // The step's number as witness: what an earlier step left in some buffer is none.
  const auto witness = static_cast<double>(step);
  const double said[] = {options_.drain->requested() ? 1.0 : 0.0, vote.due ? 1.0 : 0.0,
                         vote.busy ? 1.0 : 0.0, witness, witness * options_.world->size()};
  options_.backend->CopyFromHost(said, control_.Columns(kDrain, std::size(said)));
  Operation reduced = options_.world->AllReduceSum(control_.Columns(0, kWitness + 1));
  LASP_RETURN_IF_ERROR(data_parallel_->Finish());
  return reduced.Wait();
}

absl::Status Trainer::ReadControl(StepResult* result) {
  LASP_RETURN_IF_ERROR(options_.backend->Synchronize());
  double control[kControlSize];
  options_.backend->CopyToHost(control_, control);
  std::memcpy(static_cast<void*>(&last_update_), control + kUpdate, sizeof last_update_);
  result->loss = control[kLossSum] / label_count_;
  result->drain = control[kDrain] > 0;
  result->checkpoint_due = control[kCheckpointDue] > 0;
  result->checkpoint_busy = control[kCheckpointBusy] > 0;
  result->gradient_norm = std::sqrt(control[kSumOfSquares]);
  result->skipped = last_update_.apply == 0;
  return absl::OkStatus();
}

void Trainer::JudgeLoss(StepResult* result) {
  result->outlier = std::isfinite(result->loss) && result->loss > losses_->limit();
  if (std::isfinite(result->loss) && !result->outlier) {
    losses_->Add(result->loss);
  }
}

absl::Status Trainer::status() const {
  const int64_t most = options_.spec.optimizer().max_skipped_steps();
  if (last_update_.skipped_in_a_row <= static_cast<double>(most)) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "the loss or the gradient was not finite in ", last_update_.skipped_in_a_row,
      " steps in a row, more than optimizer.max_skipped_steps (", most,
      "): lower optimizer.learning_rate or optimizer.max_gradient_norm, or check the data"));
}

absl::StatusOr<StepResult> Trainer::Step(int64_t step, Checkpoints* checkpoints) {
  const absl::Duration begin = SystemClock().Monotonic();
  StepResult result;
  LASP_RETURN_IF_ERROR(Accumulate(step));
  LASP_RETURN_IF_ERROR(Update(step, checkpoints, &result));
  result.issue_seconds = absl::ToDoubleSeconds(SystemClock().Monotonic() - begin);
  // The step's one wait for the device.
  LASP_RETURN_IF_ERROR(ReadControl(&result));
  JudgeLoss(&result);
  judged_step_ = step;
  result.phases = options_.backend->TakePhaseSeconds();
  result.seconds = absl::ToDoubleSeconds(SystemClock().Monotonic() - begin);
  return result;
}

absl::Status Trainer::Update(int64_t step, Checkpoints* checkpoints, StepResult* result) {
  options_.backend->EnterPhase(Phase::kGradientSync);
  LASP_RETURN_IF_ERROR(Reduce(step, checkpoints));
  if (checkpoints != nullptr) {
    options_.backend->EnterPhase(Phase::kCheckpoint);
    LASP_RETURN_IF_ERROR(checkpoints->HoldDevice());
  }
  options_.backend->EnterPhase(Phase::kOptimizer);
  // The same bits on every rank, of whole gradients as of a reduced sum, hence so is the decision.
  const Tensor sum_of_squares = control_.Columns(kSumOfSquares, 1);
  for (const OwnedRange& range : data_parallel_->counted()) {
    options_.backend->SumOfSquares(range.gradient, sum_of_squares);
  }
  LASP_RETURN_IF_ERROR(data_parallel_->SumOverOwners(sum_of_squares));
  if (!data_parallel_->replicates()) {
    // The norm, too, is whole only if all took part.
    const auto witness = static_cast<double>(step);
    options_.backend->CopyFromHost(&witness, control_.Columns(kWitness, 1));
    LASP_RETURN_IF_ERROR(options_.world->AllReduceSum(control_.Columns(kWitness, 1)).Wait());
  }
  if (!dumped_batches_.empty()) {
    LASP_RETURN_IF_ERROR(ReadControl(result));
    LASP_RETURN_IF_ERROR(Dump(step, *result));
  }
  result->learning_rate = schedule_.At(step);
  const bool skips_outliers =
      options_.spec.recovery().outlier() == lasp::v1::RecoverySpec::BAD_STEP_SKIP;
  const double loss_limit =
      skips_outliers ? losses_->limit() * label_count_ : std::numeric_limits<double>::infinity();
  optimizer_->Update(result->learning_rate, loss_limit, control_.Columns(kLossSum, 1),
                     sum_of_squares, control_.Columns(kUpdate, kUpdateSize));
  LASP_RETURN_IF_ERROR(SpreadWeights());
  options_.backend->EnterPhase(Phase::kOther);
  return absl::OkStatus();
}

absl::Status Trainer::Dump(int64_t step, const StepResult& result) {
  return WriteStepDump({.directory = options_.dump_directory,
                        .step = step,
                        .loss = result.loss,
                        .gradient_norm = result.gradient_norm,
                        .label_count = static_cast<int64_t>(label_count_),
                        .batches = std::exchange(dumped_batches_, {})},
                       options_.grid, layout_, places(), *options_.backend, *data_parallel_);
}

absl::StatusOr<EvaluationResult> Trainer::Evaluate() {
  absl::StatusOr<EvaluationResult> result = EvaluateAll();
  // The next step's phases are its own.
  options_.backend->TakePhaseSeconds();
  return result;
}

absl::StatusOr<EvaluationResult> Trainer::EvaluateAll() {
  const BatchSource& data = *options_.eval_data;
  double loss_sum = 0;
  double label_count = 0;
  for (int64_t batch_index = 1; batch_index <= data.global_batch_count(); ++batch_index) {
    options_.backend->Fill(0, control_.Columns(0, kSums));
    double own_labels = 0;
    for (int64_t micro = 0; micro < data.micro_batches_per_step(); ++micro) {
      const auto fetch = [&](int64_t chunk) -> absl::StatusOr<TokenBatch> {
        LASP_ASSIGN_OR_RETURN(const Batch batch, data.Read(batch_index, micro, chunks_, chunk));
        own_labels += static_cast<double>(batch.label_count);
        return Upload(batch, chunk);
      };
      LASP_RETURN_IF_ERROR(sweep_->Evaluate(fetch, control_.Columns(kLossSum, 1)));
    }
    const double drain = options_.drain->requested() ? 1 : 0;
    options_.backend->CopyFromHost(&drain, control_.Columns(kDrain, 1));
    options_.backend->CopyFromHost(&own_labels, control_.Columns(kLabelCount, 1));
    LASP_RETURN_IF_ERROR(options_.world->AllReduceSum(control_.Columns(0, kSums)).Wait());
    double control[kSums];
    options_.backend->CopyToHost(control_.Columns(0, kSums), control);
    loss_sum += control[kLossSum];
    label_count += control[kLabelCount];
    if (control[kDrain] > 0) {
      return EvaluationResult{.loss = std::nullopt, .drain = true};
    }
  }
  return EvaluationResult{.loss = loss_sum / std::max(label_count, 1.0), .drain = false};
}

}  // namespace lasp::worker
