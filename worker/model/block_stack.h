// The blocks of a model between its embedding and its head, one call a layer:
//   x = x + mixer_l(SRMSNorm(x));  x = x + MLP_l(SRMSNorm(x))
// forward, anew from what an activation plan has kept, and backward.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/device/arena.h"
#include "worker/device/backend.h"
#include "worker/model/activation_plan.h"
#include "worker/model/block_memory.h"
#include "worker/model/layer_shapes.h"
#include "worker/model/model_config.h"
#include "worker/model/parallel_channel_mixer.h"
#include "worker/model/parameter_layout.h"
#include "worker/model/token_batch.h"
#include "worker/model/token_mixer.h"
#include "worker/parallel/carried_states.h"
#include "worker/parallel/data_parallel.h"
#include "worker/parallel/sequence_parallel.h"

namespace lasp::worker {

// How a forward gets the states before this rank's tokens.
enum class StatesBefore : uint8_t {
  kExchanged,  // from the other ranks
  kKept,       // they are where an earlier forward of the same tokens has left them
};

// Layers forward from the first to the last, backward the other way. Tells the data parallelism of
// the blocks' units. Errors are those of attention and of the data parallelism. Not thread-safe.
class BlockStack {
 public:
  // All outlive this.
  struct Parts {
    const ParameterLayout* layout = nullptr;
    const ModelWeights* weights = nullptr;
    ModelWeights* gradients = nullptr;
    DataParallel* parallel = nullptr;
    Backend* backend = nullptr;
    SequenceParallel* attention = nullptr;
  };

  // Takes its memory from `arena`, and the backend's workspace with it.
  BlockStack(const ModelConfig& config, const MicroBatchShape& shape,
             const ActivationOptions& activations, const Parts& parts, Arena& arena);

  // The rotary frequencies, kFloat64 [heads, head_size]: before a forward, where they are learned.
  Tensor theta() const { return layers_.theta(); }

  // What every forward of a batch begins with.
  void BeginForward(const TokenBatch& batch);

  // Where the embedding of `rows` tokens goes.
  absl::StatusOr<Tensor> Input(int64_t rows);
  // The residual stream before the layer is the sum of `stream` and, but before the first, of what
  // Branch has; and behind it again, with what is returned in the place of `stream`.
  absl::StatusOr<Tensor> Forward(int64_t layer, StatesBefore states, Tensor stream);

  // What a layer has added to the residual stream before the next norm has taken it up.
  Tensor Branch(int64_t rows) const { return branch_output_.Rows(0, rows); }

  // Of the last layer, no more than the state that the next macro-chunk needs.
  absl::Status ForwardLastState(Tensor stream);
  // `residual_gradient`, of the residual stream behind the layer, becomes that before it;
  // `normed_gradient` is scratch of the same shape. `adds` to the weights' gradients, or writes
  // them; `last`: of the step.
  absl::Status Backward(int64_t layer, bool adds, bool last, Tensor residual_gradient,
                        Tensor normed_gradient);

  // A rank without tokens does what the others need of it, forward and backward.
  absl::Status PassStates(int64_t layer, StatesBefore states);
  absl::Status PassGradients(int64_t layer, bool adds, bool last);
  // Begins the gradients of a unit to which it has nothing to add.
  absl::Status UseUntouched(int64_t unit, bool adds);

 private:
  TokenMixer& MixerOf(int64_t layer) const {
    return config_.softmax(layer) ? *softmax_mixer_ : *linear_mixer_;
  }

  // The part of `block` that a batch of `rows` uses, with what the macro-chunk carries.
  BlockActivations PartOf(BlockActivations block, int64_t layer, int64_t rows) const;
  // The normed input of a block, and of its MLP, each from the sum of the two.
  void NormInput(int64_t layer, Tensor stream, const BlockActivations& block);
  void NormChannelInput(Tensor branch, const BlockActivations& block);
  // The norm's part in the residual stream's gradient.
  void AddNormGradient(Tensor input, Tensor inverse_rms, Tensor normed_gradient,
                       Tensor residual_gradient);
  // What is missing for the backward of `layer`.
  absl::Status Recompute(int64_t layer, BlockActivations& block);
  // Tells the data parallelism of a block that comes, in the forward and in the backward pass.
  absl::Status UseForward(int64_t layer);
  absl::Status UseBackward(int64_t layer);

  const ModelConfig config_;
  const Parts parts_;
  Backend& backend_;
  SequenceParallel& attention_;
  DataParallel& parallel_;
  LayerShapes layers_;
  const std::unique_ptr<TokenMixer> linear_mixer_;
  const std::unique_ptr<TokenMixer> softmax_mixer_;  // null where no layer has it
  ParallelChannelMixer channel_mixer_;
  const CarriedStates* const carried_;
  std::unique_ptr<ActivationPlan> activations_;
  Tensor branch_output_;
  Tensor product_scratch_;
  TokenMixerScratch mixer_scratch_;
};

}  // namespace lasp::worker
