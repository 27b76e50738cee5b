// All that a rank trains with, and its memory: planned first, over an arena that only measures,
// then taken of one allocation.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/checkpoint/row_staging.h"
#include "worker/checkpoint/tensor_share.h"
#include "worker/data/macro_chunks.h"
#include "worker/device/arena.h"
#include "worker/engine/activation_memory.h"
#include "worker/engine/batch_upload.h"
#include "worker/engine/sequence_sweep.h"
#include "worker/engine/step_control.h"
#include "worker/engine/trainer_options.h"
#include "worker/model/model_config.h"
#include "worker/model/parameter_layout.h"
#include "worker/model/parameter_shards.h"
#include "worker/model/transnormer.h"
#include "worker/optim/adamw.h"
#include "worker/parallel/carried_states.h"
#include "worker/parallel/data_parallel.h"
#include "worker/parallel/gather_owned.h"
#include "worker/parallel/sequence_parallel.h"

namespace lasp::worker {

// Not thread-safe.
class TrainingParts {
 public:
  // Chooses how the sequences go by, plans and allocates. `options` must outlive the result.
  // RESOURCE_EXHAUSTED names the size; INVALID_ARGUMENT and UNIMPLEMENTED the field.
  static absl::StatusOr<std::unique_ptr<TrainingParts>> Create(const TrainerOptions* options);

  // Of the whole model, and what this rank has of it.
  const ModelConfig& whole_config() const { return whole_config_; }

  const ParameterLayout& layout() const { return layout_; }

  const ModelConfig& config() const { return config_; }

  const ParameterShards& shards() const { return shards_; }

  // For GatherOwned.
  PlacesOf places() const;

  // How the sequences go by: in one macro-chunk unless they stream.
  const MacroChunks& chunks() const { return chunks_; }

  StepControl& control() { return *control_; }

  BatchUpload& upload() { return *upload_; }

  TransNormer& model() { return *model_; }

  SequenceSweep& sweep() { return *sweep_; }

  // Null unless the sequences stream.
  CarriedStates* carried() { return activations_.carried(); }

  AdamW& optimizer() { return *optimizer_; }

  DataParallel& parallel() { return *parallel_; }

  const DataParallel& parallel() const { return *parallel_; }

  // Null unless ranks hold columns of which checkpoints want rows.
  RowStaging* staging() const { return staging_.get(); }

  // What a checkpoint holds.
  TrainingTensors tensors() const {
    return {parallel_->masters(), optimizer_->first_moments(), optimizer_->second_moments()};
  }

  // All this rank holds on the device.
  const MemoryBill& memory() const { return arena_.bill(); }

  // Has the weights follow the masters of owned(), which have changed.
  absl::Status SpreadWeights();

 private:
  explicit TrainingParts(const TrainerOptions* options);

  // A chunk's size may have to be measured, and agreed on by all ranks.
  absl::Status ChooseChunks();
  // Takes everything from `arena`; run over a measuring arena first.
  absl::Status TakeMemory(Arena& arena);
  absl::Status TakeParameters(Arena& arena);
  absl::Status ChooseAttention();
  absl::Status TakeModel(Arena& arena);
  absl::Status Allocate();

  const TrainerOptions& options_;
  const ModelConfig whole_config_;
  const ParameterLayout layout_;
  const ModelConfig config_;
  const ParameterLayout own_layout_;
  const ParameterShards shards_;
  MacroChunks chunks_;
  Arena arena_;
  std::unique_ptr<DataParallel> parallel_;
  // The masters of the learned frequencies: on every rank, for they are not read as weights are.
  Tensor theta_;        // those of this rank's heads
  Tensor whole_theta_;  // and of all, where they are gathered
  std::unique_ptr<BatchUpload> upload_;
  std::unique_ptr<StepControl> control_;
  std::unique_ptr<SequenceParallel> owned_attention_;
  SequenceParallel* attention_ = nullptr;
  ActivationMemory activations_;
  std::unique_ptr<TransNormer> model_;
  std::unique_ptr<SequenceSweep> sweep_;
  std::unique_ptr<AdamW> optimizer_;
  std::unique_ptr<RowStaging> staging_;
};

}  // namespace lasp::worker
