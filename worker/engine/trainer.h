// One rank's training state, and what happens in one step.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/update_control.h"
#include "lasp/v1/checkpoint.pb.h"
#include "lasp/v1/training_spec.pb.h"
#include "lasp/v1/worker_service.pb.h"
#include "proto/interchange/model_folder.h"
#include "worker/checkpoint/checkpoints.h"
#include "worker/checkpoint/row_staging.h"
#include "worker/checkpoint/tensor_share.h"
#include "worker/data/batch_prefetcher.h"
#include "worker/data/batch_source.h"
#include "worker/data/macro_chunks.h"
#include "worker/device/arena.h"
#include "worker/device/backend.h"
#include "worker/engine/activation_memory.h"
#include "worker/engine/drain_request.h"
#include "worker/engine/loss_watch.h"
#include "worker/engine/progress_clock.h"
#include "worker/engine/sequence_sweep.h"
#include "worker/model/parameter_layout.h"
#include "worker/model/parameter_shards.h"
#include "worker/model/transnormer.h"
#include "worker/optim/adamw.h"
#include "worker/optim/learning_rate_schedule.h"
#include "worker/parallel/communicator.h"
#include "worker/parallel/data_parallel.h"
#include "worker/parallel/document_marks.h"
#include "worker/parallel/gather_owned.h"
#include "worker/parallel/process_grid.h"
#include "worker/parallel/sequence_parallel.h"

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

struct EvaluationResult {
  // None when a drain ended the evaluation.
  std::optional<double> loss;
  bool drain = false;
};

// Not thread-safe.
class Trainer {
 public:
  struct Options {
    lasp::v1::TrainingSpec spec;  // with its defaults written out
    ProcessGrid grid;
    // All outlive the trainer.
    Backend* backend = nullptr;
    Communicator* sp = nullptr;     // the SP group
    Communicator* world = nullptr;  // all ranks
    // Where SP groups shard (GroupsShard): this rank's, and the ranks in the same place of the
    // others. Not the communicators of `sp`: states do not wait for weights.
    Communicator* shards = nullptr;
    Communicator* replicas = nullptr;
    Communicator* wrap = nullptr;  // the SP group once more; null unless the sequences stream
    const BatchSource* train_data = nullptr;
    const BatchSource* eval_data = nullptr;  // null: nothing is held out
    const DrainRequest* drain = nullptr;
    // Where given, the run goes on from there; otherwise it begins.
    std::string checkpoint_root = {};
    std::optional<lasp::v1::CheckpointReference> restore_from = {};
    // The agent's; empty: no state is left there. And what the run goes on from in place of a
    // checkpoint, with the job's uid.
    std::string memory_root = {};
    std::optional<lasp::v1::Rebuild> rebuild = {};
    std::string uid = {};
    // Told as it is read; null for nobody.
    ProgressClock* progress = nullptr;
    // Where given, and the run begins, with these weights; null: with random ones. Used by Create.
    const ModelFolder* initial_weights = nullptr;
    // Where given, WriteStepDump after the reduction of a run's first step.
    std::string dump_directory;
    // Replaces the strategy that the spec names (tests).
    SequenceParallel* attention = nullptr;
  };

  // Plans and allocates all memory and makes the parameters, or reads them back. RESOURCE_EXHAUSTED
  // names the size; errors of Restore.
  static absl::StatusOr<std::unique_ptr<Trainer>> Create(Options options);

  // The first step to train: 1, or the one behind the checkpoint.
  int64_t first_step() const { return restored_.step() + 1; }

  // What the run began from; all zeros for the beginning.
  const lasp::v1::TrainingState& restored() const { return restored_; }

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

  int64_t skipped_total() const { return static_cast<int64_t>(last_update_.skipped); }

  // Of the whole model.
  const ParameterLayout& layout() const { return layout_; }

  // What a checkpoint holds.
  TrainingTensors tensors() const {
    return {data_parallel_->masters(), optimizer_->first_moments(), optimizer_->second_moments()};
  }

  // What of them this rank has, in the order of layout(); none: all.
  std::optional<std::vector<TensorShare>> owned_shares() const;

  // What of them this rank saves, as CheckpointWriter wants it: each element is one rank's, but for
  // what it saves of staging(), which is null unless ranks hold columns.
  std::optional<std::vector<TensorShare>> saved_shares() const;

  RowStaging* staging() const { return staging_.get(); }

  // The masters, as far as this rank has them.
  Tensor parameters() const { return data_parallel_->masters(); }

  // How the sequences go by: in one macro-chunk unless they stream.
  const MacroChunks& chunks() const { return chunks_; }

  // All this rank holds on the device.
  const MemoryBill& memory() const { return arena_.bill(); }

 private:
  explicit Trainer(Options options);
  // For GatherOwned.
  PlacesOf places() const;
  bool streams() const;
  // Whether the documents of a sequence are apart.
  bool packs() const;
  // How the sequences go by; a chunk's size may have to be measured, and agreed on by all ranks.
  absl::Status ChooseChunks();
  // Takes everything from `arena`; run over a measuring arena first.
  absl::Status TakeMemory(Arena& arena);
  // One forward and backward whose results are thrown away, on a device that gains by it. All ranks
  // of a group rehearse together.
  absl::Status Rehearse();
  // Parameters and moments, as a run begins or as a checkpoint has them.
  absl::Status MakeState();
  // What the update counts, as restored_ has it.
  void TakeUpCounts();
  // Of packed documents in macro-chunk `chunk`.
  DocumentMarksLayout MarksOf(int64_t chunk) const;
  // This rank's slice of macro-chunk `chunk`.
  TokenBatch Upload(const Batch& batch, int64_t chunk);
  // Forward and backward of all micro-batches; leaves the loss sum in control_.
  absl::Status Accumulate(int64_t step);
  absl::Status Reduce(int64_t step, const Checkpoints* checkpoints);
  // Everything after the backward pass.
  absl::Status Update(int64_t step, Checkpoints* checkpoints, StepResult* result);
  // Waits for the device.
  absl::Status ReadControl(StepResult* result);
  // Whether the loss is an outlier, and what it teaches of the next.
  void JudgeLoss(StepResult* result);
  // From the labels of this rank in a step to those of the whole world.
  absl::Status CountLabels(int64_t own);
  absl::StatusOr<EvaluationResult> EvaluateAll();
  absl::Status Dump(int64_t step, const StepResult& result);
  // Has the weights follow the masters of owned(), which have changed.
  absl::Status SpreadWeights();

  const Options options_;
  const ModelConfig model_config_;
  const ParameterLayout layout_;
  // The same, of what this rank has of the model.
  const ModelConfig own_config_;
  const ParameterLayout own_layout_;
  const ParameterShards shards_;
  const LearningRateSchedule schedule_;
  MacroChunks chunks_;
  Arena arena_;
  std::unique_ptr<DataParallel> data_parallel_;
  // The masters of the learned frequencies: on every rank, for they are not read as weights are.
  Tensor theta_;        // those of this rank's heads
  Tensor whole_theta_;  // and of all, where they are gathered
  TokenBatch tokens_;
  Tensor document_marks_;  // kInt32 [1, those of a micro-batch]; empty where documents are joined
  // Of the step at hand, in the whole global batch; 1 where there is none.
  double label_count_;
  // kFloat64 [1, n]: what the host learns from a step; the first of it is reduced.
  Tensor control_;
  lasp::v1::TrainingState restored_;
  std::unique_ptr<LossWatch> losses_;
  // As the last step left it.
  kernels::UpdateControl last_update_;
  // The last one whose loss has been judged.
  int64_t judged_step_ = 0;
  std::unique_ptr<SequenceParallel> owned_attention_;
  SequenceParallel* attention_ = nullptr;
  ActivationMemory activations_;
  std::unique_ptr<TransNormer> model_;
  std::unique_ptr<SequenceSweep> sweep_;
  std::unique_ptr<AdamW> optimizer_;
  std::unique_ptr<RowStaging> staging_;
  std::unique_ptr<BatchPrefetcher> batches_;
  // The first step's, where it is dumped.
  std::vector<Batch> dumped_batches_;
};

}  // namespace lasp::worker
