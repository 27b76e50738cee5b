#include "worker/engine/trainer.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/status_macros.h"
#include "worker/checkpoint/initial_weights.h"
#include "worker/checkpoint/restore.h"
#include "worker/engine/step_dump.h"
#include "worker/engine/strategies.h"
#include "worker/model/parameter_init.h"

namespace lasp::worker {
namespace {

// Places in control_. The first are summed over the world.
constexpr int64_t kLossSum = 0;
constexpr int64_t kLabelCount = 1;
// A step's votes lie side by side.
constexpr int64_t kDrain = 2;
constexpr int64_t kCheckpointDue = 3;
constexpr int64_t kCheckpointBusy = 4;
constexpr int64_t kReducedSize = 5;
constexpr int64_t kSumOfSquares = 5;
// What a step sets to zero.
constexpr int64_t kStepSize = 6;
constexpr int64_t kUpdate = 6;
constexpr int64_t kUpdateSize = sizeof(kernels::UpdateControl) / sizeof(double);
constexpr int64_t kControlSize = kUpdate + kUpdateSize;

}  // namespace

Trainer::Trainer(Options options)
    : options_(std::move(options)),
      model_config_(ModelConfig::FromSpec(options_.spec.model())),
      layout_(model_config_),
      schedule_(options_.spec.optimizer(), options_.spec.max_steps()) {}

absl::StatusOr<std::unique_ptr<Trainer>> Trainer::Create(Options options) {
  auto trainer = std::unique_ptr<Trainer>(new Trainer(std::move(options)));
  Arena plan;
  LASP_RETURN_IF_ERROR(trainer->TakeMemory(plan));
  absl::StatusOr<Arena> arena = Arena::Create(*trainer->options_.backend, plan.used_bytes());
  if (!arena.ok()) {
    return absl::Status(arena.status().code(),
                        absl::StrCat(arena.status().message(), " (", plan.bill().ToString(),
                                     "): use more ranks, or a smaller model, "
                                     "data.sequence_length or micro_batch_size"));
  }
  trainer->arena_ = *std::move(arena);
  LASP_RETURN_IF_ERROR(trainer->TakeMemory(trainer->arena_));
  for (Communicator* const group : {trainer->options_.world, trainer->options_.sp}) {
    LASP_RETURN_IF_ERROR(group->Register(trainer->arena_.whole()));
  }
  LASP_RETURN_IF_ERROR(trainer->MakeState());
  trainer->losses_ =
      std::make_unique<LossWatch>(trainer->options_.spec.recovery().outlier_deviations(),
                                  std::vector<double>(trainer->restored_.recent_losses().begin(),
                                                      trainer->restored_.recent_losses().end()));
  LASP_RETURN_IF_ERROR(trainer->Rehearse());
  trainer->batches_ = std::make_unique<BatchPrefetcher>(
      trainer->options_.train_data, trainer->first_step(), trainer->options_.spec.max_steps());
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
  if (!options_.restore_from.has_value() && options_.initial_weights != nullptr) {
    LASP_RETURN_IF_ERROR(LoadInitialWeights({.folder = options_.initial_weights,
                                             .layout = &layout_,
                                             .backend = &backend,
                                             .world = options_.world,
                                             .masters = parameters_.masters,
                                             .give_up = give_up,
                                             .on_block = on_block}));
  } else if (!options_.restore_from.has_value()) {
    InitializeParameters(model_config_, layout_, options_.spec.seed(), backend,
                         parameters_.masters);
  } else {
    LASP_ASSIGN_OR_RETURN(restored_, Restore({.root = options_.checkpoint_root,
                                              .reference = *options_.restore_from,
                                              .spec = options_.spec,
                                              .layout = &layout_,
                                              .backend = &backend,
                                              .world = options_.world,
                                              .tensors = tensors(),
                                              .give_up = give_up,
                                              .on_block = on_block}));
    last_update_.updates = static_cast<double>(restored_.update_count());
    last_update_.skipped = static_cast<double>(restored_.skipped_count());
    last_update_.skipped_in_a_row = static_cast<double>(restored_.skipped_in_a_row());
    backend.CopyFromHost(&last_update_, control_.Columns(kUpdate, kUpdateSize));
  }
  enter(ProgressClock::Section::kUntimed);
  if (parameters_.weights.data != parameters_.masters.data) {
    backend.Convert(parameters_.masters, parameters_.weights);
  }
  return absl::OkStatus();
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
                              .tokens = spec.data().sequence_length() / options_.grid.sp_size()};
  parameters_.masters =
      arena.Take(MemoryUse::kWeights, backend->accumulation_type(), 1, layout_.count());
  parameters_.weights = parameters_.masters;
  if (backend->activation_type() != backend->accumulation_type()) {
    parameters_.weights =
        arena.Take(MemoryUse::kWeights, backend->activation_type(), 1, layout_.count());
  }
  parameters_.gradients =
      arena.Take(MemoryUse::kGradients, backend->accumulation_type(), 1, layout_.count());
  tokens_ = {.ids = arena.Take(MemoryUse::kWorkspace, DType::kInt32, shape.rows(), 1),
             .labels = arena.Take(MemoryUse::kWorkspace, DType::kInt32, shape.rows(), 1)};
  control_ = arena.Take(MemoryUse::kWorkspace, DType::kFloat64, 1, kControlSize);
  attention_ = options_.attention;
  if (attention_ == nullptr) {
    LASP_ASSIGN_OR_RETURN(
        owned_attention_,
        CreateSequenceParallel(spec.parallelism().sequence_parallel(), backend, options_.sp));
    attention_ = owned_attention_.get();
  }
  model_ = std::make_unique<TransNormer>(model_config_, shape, &layout_, parameters_, backend,
                                         attention_, arena);
  LASP_ASSIGN_OR_RETURN(reducer_, CreateDataParallel(spec.parallelism().data_parallel(),
                                                     options_.world, parameters_.gradients));
  optimizer_ =
      std::make_unique<AdamW>(spec.optimizer(), backend, parameters_.masters, parameters_.weights,
                              parameters_.gradients, layout_.Ranges(), arena);
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
  for (int64_t micro_batch = 0; micro_batch < micro_batches; ++micro_batch) {
    LASP_RETURN_IF_ERROR(model_->ForwardForTraining(tokens_, 1, control_.Columns(kLossSum, 1),
                                                    /*adds=*/micro_batch > 0));
    LASP_RETURN_IF_ERROR(model_->Backward(tokens_, nullptr));
  }
  LASP_RETURN_IF_ERROR(backend.Synchronize());
  backend.Rehearse(false);
  return absl::OkStatus();
}

void Trainer::Upload(const Batch& batch) {
  options_.backend->CopyFromHost(batch.tokens.data(), tokens_.ids);
  options_.backend->CopyFromHost(batch.labels.data(), tokens_.labels);
}

absl::Status Trainer::Accumulate(int64_t step) {
  // Every position of a training batch has a label, so the count over the world is known before
  // the first backward, without a reduction.
  const double label_count = LabelCount();
  const int64_t micro_batches = options_.train_data->micro_batches_per_step();
  options_.backend->Fill(0, control_.Columns(0, kStepSize));
  for (int64_t micro_batch = 0; micro_batch < micro_batches; ++micro_batch) {
    options_.backend->EnterPhase(Phase::kData);
    LASP_ASSIGN_OR_RETURN(Batch batch, batches_->Next());
    Upload(batch);
    if (step == 1 && !options_.dump_directory.empty()) {
      dumped_batches_.push_back(std::move(batch));
    }
    options_.backend->EnterPhase(Phase::kForward);
    LASP_RETURN_IF_ERROR(model_->ForwardForTraining(tokens_, 1 / label_count,
                                                    control_.Columns(kLossSum, 1),
                                                    /*adds=*/micro_batch > 0));
    options_.backend->EnterPhase(Phase::kBackward);
    LASP_RETURN_IF_ERROR(
        model_->Backward(tokens_, micro_batch + 1 == micro_batches ? reducer_.get() : nullptr));
  }
  return absl::OkStatus();
}

absl::Status Trainer::Reduce(int64_t step, const Checkpoints* checkpoints) {
  const Checkpoints::Vote vote =
      checkpoints == nullptr ? Checkpoints::Vote{} : checkpoints->VoteAfter(step);
  const double votes[] = {options_.drain->requested() ? 1.0 : 0.0, vote.due ? 1.0 : 0.0,
                          vote.busy ? 1.0 : 0.0};
  options_.backend->CopyFromHost(votes, control_.Columns(kDrain, std::size(votes)));
  Operation reduced = options_.world->AllReduceSum(control_.Columns(0, kReducedSize));
  LASP_RETURN_IF_ERROR(reducer_->Finish());
  return reduced.Wait();
}

absl::Status Trainer::ReadControl(StepResult* result) {
  LASP_RETURN_IF_ERROR(options_.backend->Synchronize());
  double control[kStepSize];
  options_.backend->CopyToHost(control_.Columns(0, kStepSize), control);
  options_.backend->CopyToHost(control_.Columns(kUpdate, kUpdateSize), &last_update_);
  result->loss = control[kLossSum] / LabelCount();
  result->drain = control[kDrain] > 0;
  result->checkpoint_due = control[kCheckpointDue] > 0;
  result->checkpoint_busy = control[kCheckpointBusy] > 0;
  result->gradient_norm = std::sqrt(control[kSumOfSquares]);
  result->skipped = last_update_.apply == 0;
  return absl::OkStatus();
}

double Trainer::LabelCount() const {
  return static_cast<double>(options_.spec.global_batch_size()) *
         static_cast<double>(options_.spec.data().sequence_length());
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
  // Reduced gradients are the same bits on every rank, hence so are the norm and the decision.
  const Tensor sum_of_squares = control_.Columns(kSumOfSquares, 1);
  options_.backend->SumOfSquares(parameters_.gradients, sum_of_squares);
  if (!dumped_batches_.empty()) {
    LASP_RETURN_IF_ERROR(ReadControl(result));
    LASP_RETURN_IF_ERROR(Dump(step, *result));
  }
  result->learning_rate = schedule_.At(step);
  const bool skips_outliers =
      options_.spec.recovery().outlier() == lasp::v1::RecoverySpec::BAD_STEP_SKIP;
  const double loss_limit =
      skips_outliers ? losses_->limit() * LabelCount() : std::numeric_limits<double>::infinity();
  optimizer_->Update(result->learning_rate, loss_limit, control_.Columns(kLossSum, 1),
                     sum_of_squares, control_.Columns(kUpdate, kUpdateSize));
  options_.backend->EnterPhase(Phase::kOther);
  return absl::OkStatus();
}

absl::Status Trainer::Dump(int64_t step, const StepResult& result) {
  return WriteStepDump(
      {.directory = options_.dump_directory,
       .step = step,
       .loss = result.loss,
       .gradient_norm = result.gradient_norm,
       .label_count = options_.spec.global_batch_size() * options_.spec.data().sequence_length(),
       .batches = std::exchange(dumped_batches_, {})},
      options_.grid, layout_, *options_.backend, parameters_.masters, parameters_.gradients);
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
    options_.backend->Fill(0, control_.Columns(0, kStepSize));
    double own_labels = 0;
    for (int64_t micro = 0; micro < data.micro_batches_per_step(); ++micro) {
      LASP_ASSIGN_OR_RETURN(const Batch batch, data.Read(batch_index, micro));
      Upload(batch);
      own_labels += static_cast<double>(batch.label_count);
      LASP_RETURN_IF_ERROR(model_->ForwardForEvaluation(tokens_, control_.Columns(kLossSum, 1)));
    }
    const double drain = options_.drain->requested() ? 1 : 0;
    options_.backend->CopyFromHost(&drain, control_.Columns(kDrain, 1));
    options_.backend->CopyFromHost(&own_labels, control_.Columns(kLabelCount, 1));
    LASP_RETURN_IF_ERROR(options_.world->AllReduceSum(control_.Columns(0, kReducedSize)).Wait());
    double control[kStepSize];
    options_.backend->CopyToHost(control_.Columns(0, kStepSize), control);
    loss_sum += control[kLossSum];
    label_count += control[kLabelCount];
    if (control[kDrain] > 0) {
      return EvaluationResult{.loss = std::nullopt, .drain = true};
    }
  }
  return EvaluationResult{.loss = loss_sum / label_count, .drain = false};
}

}  // namespace lasp::worker
