// One rank's training state, and what happens in one step: micro-batches forward and backward, the
// reduction over the world, the update.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lasp/v1/checkpoint.pb.h"
#include "lasp/v1/worker_service.pb.h"
#include "worker/checkpoint/checkpoints.h"
#include "worker/checkpoint/row_staging.h"
#include "worker/checkpoint/tensor_share.h"
#include "worker/data/batch.h"
#include "worker/data/batch_prefetcher.h"
#include "worker/data/macro_chunks.h"
#include "worker/device/memory_bill.h"
#include "worker/device/phase.h"
#include "worker/engine/held_out_loss.h"
#include "worker/engine/loss_watch.h"
#include "worker/engine/trainer_options.h"
#include "worker/engine/training_parts.h"
#include "worker/model/parameter_layout.h"
#include "worker/optim/learning_rate_schedule.h"

namespace lasp::worker {

// What all ranks know after a step. The losses and the norm are the same bits on all of them.
struct StepResult {
  double loss = 0;
  double gradient_norm = 0;
  double learning_rate = 0;
  // The update was left out.
  bool skipped = false;
  // The loss is far above those before it.
  bool outlier = false;
  // Some rank has been asked to drain: all leave after this step.
  bool drain = false;
  // A checkpoint is due; and some rank still writes the one before.
  bool checkpoint_due = false;
  bool checkpoint_busy = false;
  double seconds = 0;
  // Until the host had issued all of it: on a GPU how far the host is ahead; recorded graphs would
  // pay where this comes near the whole.
  double issue_seconds = 0;
  PhaseSeconds phases;
};

// Not thread-safe.
class Trainer {
 public:
  using Options = TrainerOptions;

  // Plans and allocates all memory and makes the parameters, or reads them back. RESOURCE_EXHAUSTED
  // names the size; errors of MakeStartingState.
  static absl::StatusOr<std::unique_ptr<Trainer>> Create(Options options);

  // The first step to train: 1, or the one behind the checkpoint.
  int64_t first_step() const { return restored_.step() + 1; }

  // What the run began from; all zeros for the beginning.
  const lasp::v1::TrainingState& restored() const { return restored_; }

  // Of the checkpoint that the run began from; 0 where it began from none, as a rebuilt one does.
  int64_t checkpointed_step() const { return options_.rebuild.has_value() ? 0 : restored_.step(); }

  // Steps from first_step() on, in order. Errors of the data and of the communicators.
  absl::StatusOr<StepResult> Step(int64_t step, Checkpoints* checkpoints = nullptr);
  // After `step`, the last one made.
  lasp::v1::TrainingState StateAfter(int64_t step) const;
  // After an error of the communicators, which must have been abandoned: leaves this rank's share
  // of the state in the host's memory, as far as its updates have come. FAILED_PRECONDITION where
  // there is nothing to leave that others had not; otherwise errors of LeaveState and of the
  // device.
  absl::StatusOr<lasp::v1::StateLeft> LeaveState(const lasp::v1::Fence& fence);
  // The mean loss on the held-out data; eval_data must be given.
  absl::StatusOr<EvaluationResult> Evaluate();

  // FAILED_PRECONDITION when too many steps in a row had to be skipped.
  absl::Status status() const;

  int64_t skipped_total() const {
    return static_cast<int64_t>(parts_->control().last_update().skipped);
  }

  // Of the whole model.
  const ParameterLayout& layout() const { return parts_->layout(); }

  // What a checkpoint holds.
  TrainingTensors tensors() const { return parts_->tensors(); }

  // What of them this rank has, in the order of layout(); none: all.
  std::optional<std::vector<TensorShare>> owned_shares() const;

  // What of them this rank saves, as CheckpointWriter wants it: each element is one rank's, but for
  // what it saves of staging(), which is null unless ranks hold columns.
  std::optional<std::vector<TensorShare>> saved_shares() const;

  RowStaging* staging() const { return parts_->staging(); }

  // The masters, as far as this rank has them.
  Tensor parameters() const { return parts_->parallel().masters(); }

  // How the sequences go by: in one macro-chunk unless they stream.
  const MacroChunks& chunks() const { return parts_->chunks(); }

  // All this rank holds on the device.
  const MemoryBill& memory() const { return parts_->memory(); }

 private:
  explicit Trainer(Options options);
  // Forward and backward of all micro-batches; leaves the loss sum in the step's control.
  absl::Status Accumulate(int64_t step);
  // Of the loss, the votes and the gradients, over the world.
  absl::Status Reduce(int64_t step, const Checkpoints* checkpoints);
  // The gradients' norm, which is that of all ranks.
  absl::Status SumSquares(int64_t step);
  // The optimizer's, of masters and weights.
  absl::Status Update(int64_t step, StepResult* result);
  // What the step's control says. Waits for the device.
  absl::Status ReadControl(StepResult* result);
  // Whether the step was counted where the update was made. Where communication was broken off the
  // device goes on without it, to numbers that are nobody's: the reason then.
  absl::Status CheckFinished(int64_t step);
  // As ReadControl found it last.
  int64_t CountedSteps() const;
  // Whether the loss is an outlier, and what it teaches of the next.
  void JudgeLoss(StepResult* result);
  // The first step's, where it is wanted.
  absl::Status DumpStep(int64_t step, StepResult* result);

  const Options options_;
  const LearningRateSchedule schedule_;
  std::unique_ptr<TrainingParts> parts_;
  // Of the step at hand, in the whole global batch; 1 where there is none.
  double label_count_;
  lasp::v1::TrainingState restored_;
  std::unique_ptr<LossWatch> losses_;
  // The last one whose loss has been judged.
  int64_t judged_step_ = 0;
  // Of the step at hand: the last of its sums that every rank takes part in.
  Operation reduced_;
  std::unique_ptr<BatchPrefetcher> batches_;
  // The first step's, where it is dumped.
  std::vector<Batch> dumped_batches_;
};

}  // namespace lasp::worker
