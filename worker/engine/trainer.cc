#include "worker/engine/trainer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/status_macros.h"
#include "worker/checkpoint/left_state.h"
#include "worker/engine/rehearsal.h"
#include "worker/engine/starting_state.h"
#include "worker/engine/state_shares.h"
#include "worker/engine/step_dump.h"

namespace lasp::worker {

Trainer::Trainer(Options options)
    : options_(std::move(options)),
      schedule_(options_.spec.optimizer(), options_.spec.max_steps()),
      label_count_(static_cast<double>(options_.spec.global_batch_size()) *
                   static_cast<double>(options_.spec.data().sequence_length())) {}

absl::StatusOr<std::unique_ptr<Trainer>> Trainer::Create(Options options) {
  auto trainer = std::unique_ptr<Trainer>(new Trainer(std::move(options)));
  const Options& kept = trainer->options_;
  LASP_ASSIGN_OR_RETURN(trainer->parts_, TrainingParts::Create(&kept));
  TrainingParts& parts = *trainer->parts_;
  LASP_ASSIGN_OR_RETURN(trainer->restored_, MakeStartingState(kept, parts));
  const auto& losses = trainer->restored_.recent_losses();
  trainer->losses_ = std::make_unique<LossWatch>(kept.spec.recovery().outlier_deviations(),
                                                 std::vector<double>(losses.begin(), losses.end()));
  LASP_RETURN_IF_ERROR(Rehearse(kept, parts));
  trainer->batches_ = std::make_unique<BatchPrefetcher>(kept.train_data, trainer->first_step(),
                                                        kept.spec.max_steps(), parts.chunks());
  return trainer;
}

absl::StatusOr<StepResult> Trainer::Step(int64_t step, Checkpoints* checkpoints) {
  const absl::Duration begin = SystemClock().Monotonic();
  Backend& backend = *options_.backend;
  StepResult result;
  LASP_RETURN_IF_ERROR(Accumulate(step));
  backend.EnterPhase(Phase::kGradientSync);
  LASP_RETURN_IF_ERROR(Reduce(step, checkpoints));
  if (checkpoints != nullptr) {
    backend.EnterPhase(Phase::kCheckpoint);
    LASP_RETURN_IF_ERROR(checkpoints->HoldDevice());
  }
  backend.EnterPhase(Phase::kOptimizer);
  LASP_RETURN_IF_ERROR(SumSquares(step));
  LASP_RETURN_IF_ERROR(DumpStep(step, &result));
  LASP_RETURN_IF_ERROR(Update(step, &result));
  backend.EnterPhase(Phase::kOther);
  result.issue_seconds = absl::ToDoubleSeconds(SystemClock().Monotonic() - begin);
  // The step's one wait for the device.
  LASP_RETURN_IF_ERROR(ReadControl(&result));
  LASP_RETURN_IF_ERROR(CheckFinished(step));
  JudgeLoss(&result);
  judged_step_ = step;
  result.phases = backend.TakePhaseSeconds();
  result.seconds = absl::ToDoubleSeconds(SystemClock().Monotonic() - begin);
  return result;
}

absl::Status Trainer::Accumulate(int64_t step) {
  const int64_t micro_batches = options_.train_data->micro_batches_per_step();
  parts_->control().Begin();
  parts_->parallel().BeginStep();
  // The count over the world is known before the first backward: of joined documents every position
  // of a training batch has a label.
  std::optional<Batch> first;
  if (options_.packs()) {
    options_.backend->EnterPhase(Phase::kData);
    LASP_ASSIGN_OR_RETURN(first, batches_->Next());
    LASP_ASSIGN_OR_RETURN(label_count_,
                          parts_->control().CountLabels(first->step_label_count, *options_.world));
    // Where every document is one token long nothing is predicted, and nothing lost.
    label_count_ = std::max(label_count_, 1.0);
  }
  int64_t pass = 0;
  const auto fetch = [&](int64_t chunk) -> absl::StatusOr<TokenBatch> {
    // The prefetcher knows the order.
    if (!first.has_value()) {
      LASP_ASSIGN_OR_RETURN(first, batches_->Next());
    }
    Batch batch = *std::exchange(first, std::nullopt);
    const TokenBatch slice = parts_->upload().Upload(batch, chunk);
    if (step == 1 && !options_.dump_directory.empty() && pass++ < parts_->chunks().count()) {
      dumped_batches_.push_back(std::move(batch));
    }
    return slice;
  };
  for (int64_t micro_batch = 0; micro_batch < micro_batches; ++micro_batch) {
    pass = 0;
    LASP_RETURN_IF_ERROR(parts_->sweep().Train(
        fetch, 1 / label_count_, parts_->control().loss_sum(), /*adds=*/micro_batch > 0,
        /*last_micro_batch=*/micro_batch + 1 == micro_batches));
  }
  return absl::OkStatus();
}

absl::Status Trainer::Reduce(int64_t step, const Checkpoints* checkpoints) {
  const Checkpoints::Vote vote =
      checkpoints == nullptr ? Checkpoints::Vote{} : checkpoints->VoteAfter(step);
  reduced_ = parts_->control().Reduce(step,
                                      {.drain = options_.drain->requested(),
                                       .checkpoint_due = vote.due,
                                       .checkpoint_busy = vote.busy},
                                      *options_.world);
  LASP_RETURN_IF_ERROR(parts_->parallel().Finish());
  return reduced_.Wait();
}

absl::Status Trainer::CheckFinished(int64_t step) {
  if (CountedSteps() == step) {
    return absl::OkStatus();
  }
  LASP_RETURN_IF_ERROR(reduced_.Wait());
  return absl::UnavailableError(
      absl::StrCat("step ", step, " was broken off: not every rank's part of it came"));
}

int64_t Trainer::CountedSteps() const {
  const kernels::UpdateControl& update = parts_->control().last_update();
  return static_cast<int64_t>(update.updates + update.skipped);
}

absl::Status Trainer::SumSquares(int64_t step) {
  DataParallel& parallel = parts_->parallel();
  // The same bits on every rank, of whole gradients as of a reduced sum, hence so is the decision.
  const Tensor sum_of_squares = parts_->control().sum_of_squares();
  for (const OwnedRange& range : parallel.counted()) {
    options_.backend->SumOfSquares(range.gradient, sum_of_squares);
  }
  LASP_RETURN_IF_ERROR(parallel.SumOverOwners(sum_of_squares));
  return parallel.replicates() ? absl::OkStatus()
                               : parts_->control().WitnessNorm(step, *options_.world);
}

absl::Status Trainer::Update(int64_t step, StepResult* result) {
  result->learning_rate = schedule_.At(step);
  const bool skips_outliers =
      options_.spec.recovery().outlier() == lasp::v1::RecoverySpec::BAD_STEP_SKIP;
  const double loss_limit =
      skips_outliers ? losses_->limit() * label_count_ : std::numeric_limits<double>::infinity();
  StepControl& control = parts_->control();
  parts_->optimizer().Update(result->learning_rate, loss_limit, control.loss_sum(),
                             control.sum_of_squares(), control.update());
  return parts_->SpreadWeights();
}

absl::Status Trainer::DumpStep(int64_t step, StepResult* result) {
  if (dumped_batches_.empty()) {
    return absl::OkStatus();
  }
  LASP_RETURN_IF_ERROR(ReadControl(result));
  return WriteStepDump({.directory = options_.dump_directory,
                        .step = step,
                        .loss = result->loss,
                        .gradient_norm = result->gradient_norm,
                        .label_count = static_cast<int64_t>(label_count_),
                        .batches = std::exchange(dumped_batches_, {})},
                       options_.grid, layout(), parts_->places(), *options_.backend,
                       parts_->parallel());
}

absl::Status Trainer::ReadControl(StepResult* result) {
  LASP_ASSIGN_OR_RETURN(const StepNumbers numbers, parts_->control().Read());
  result->loss = numbers.loss_sum / label_count_;
  result->gradient_norm = numbers.gradient_norm;
  result->drain = numbers.votes.drain;
  result->checkpoint_due = numbers.votes.checkpoint_due;
  result->checkpoint_busy = numbers.votes.checkpoint_busy;
  result->skipped = parts_->control().last_update().apply == 0;
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
  const double skipped = parts_->control().last_update().skipped_in_a_row;
  if (skipped <= static_cast<double>(most)) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(absl::StrCat(
      skipped, " steps in a row were skipped, whose loss or gradient was not finite",
      options_.spec.recovery().outlier() == lasp::v1::RecoverySpec::BAD_STEP_SKIP
          ? " or whose loss was an outlier (recovery.outlier)"
          : "",
      ", more than optimizer.max_skipped_steps (", most,
      "): lower optimizer.learning_rate or optimizer.max_gradient_norm, or check the data"));
}

absl::StatusOr<EvaluationResult> Trainer::Evaluate() { return HeldOutLoss(options_, *parts_); }

std::optional<std::vector<TensorShare>> Trainer::owned_shares() const {
  return SharesOwned(*parts_);
}

std::optional<std::vector<TensorShare>> Trainer::saved_shares() const {
  return SharesSaved(options_, *parts_);
}

absl::StatusOr<lasp::v1::StateLeft> Trainer::LeaveState(const lasp::v1::Fence& fence) {
  LASP_ASSIGN_OR_RETURN(std::vector<TensorShare> shares, SharesLeft(options_, *parts_));
  // The device may have made an update of which the host has not heard.
  StepResult last;
  LASP_RETURN_IF_ERROR(ReadControl(&last));
  const int64_t step = CountedSteps();
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
                             .elements = layout().count(),
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
  const kernels::UpdateControl& update = parts_->control().last_update();
  lasp::v1::TrainingState state;
  state.set_step(step);
  state.set_update_count(static_cast<int64_t>(update.updates));
  state.set_skipped_count(static_cast<int64_t>(update.skipped));
  state.set_skipped_in_a_row(static_cast<int64_t>(update.skipped_in_a_row));
  state.set_sequence_count(step * options_.spec.global_batch_size());
  for (const double loss : losses_->losses()) {
    state.add_recent_losses(loss);
  }
  return state;
}

}  // namespace lasp::worker
