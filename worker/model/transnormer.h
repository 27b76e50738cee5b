// TransNormerLLM, first version (lightning attention's first model):
//   x = sqrt(D) Embed(ids)
//   x = x + GLA_l(SRMSNorm(x));  x = x + SGLU_l(SRMSNorm(x))      for each layer
//   logits = SRMSNorm(x) W_head^T
// with LRPE on the first layer's queries and keys and one decay a head and layer. A Linear
// Transformer (ModelConfig) has the same blocks around another mixer (token_mixer.h), and
//   x = sqrt(D) Embed(ids) + sinusoidal positions
// Of either, layers may have softmax attention in the place of their own.
// All gradients are written by hand. With tensor parallelism (parallel/tensor_parallel.h) the
// residual stream is of this rank's tokens, a layer of this rank's heads and of all tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "worker/device/arena.h"
#include "worker/device/backend.h"
#include "worker/device/host_stash.h"
#include "worker/model/activation_plan.h"
#include "worker/model/language_head.h"
#include "worker/model/model_config.h"
#include "worker/model/parallel_channel_mixer.h"
#include "worker/model/parameter_layout.h"
#include "worker/model/token_mixer.h"
#include "worker/parallel/carried_states.h"
#include "worker/parallel/data_parallel.h"
#include "worker/parallel/document_marks.h"
#include "worker/parallel/sequence_parallel.h"
#include "worker/parallel/sequence_slices.h"

namespace lasp::worker {

// This rank's slice of a micro-batch: kInt32 [sequences * tokens, 1] each.
struct TokenBatch {
  Tensor ids;
  Tensor labels;
  // Of all ranks; nothing said: each has as many tokens.
  SequenceSlices slices = {};
  // Of each sequence's first token here, in the sequence; documents inside it do not begin anew.
  int64_t first_position = 0;
  // Where documents start, in all slices.
  DocumentMarks documents = {};
};

// What the model reads and writes of its parameters.
struct ParameterTensors {
  // Told of each use of a unit of the layout (ParameterLayout::units), and of its gradients.
  DataParallel* parallel = nullptr;
  // Where learned frequencies are before a forward pass, of the accumulation type: [heads,
  // head_size]; empty unless they are learned.
  Tensor learned_theta;
};

// What is kept from forward to backward, and where. The pointers are null while memory is measured,
// and outlive the model.
struct ActivationOptions {
  Recomputation recomputation = Recomputation::kNothing;
  // Blocks' inputs go to the host's memory; with kBlock.
  bool offloads = false;
  // Then one slot a layer, each of a block's input.
  HostStash* stash = nullptr;
  // The batches are macro-chunks of their sequences; with kNothing.
  bool streams = false;
  // Then, for the layers' shapes.
  CarriedStates* carried = nullptr;
};

// Not thread-safe.
class TransNormer {
 public:
  // Takes its memory, but that of the parameters, from `arena`. All but `config`, `shape`,
  // `activations` and `arena` must outlive this.
  TransNormer(const ModelConfig& config, const MicroBatchShape& shape,
              const ActivationOptions& activations, const ParameterLayout* layout,
              const ParameterTensors& parameters, Backend* backend, SequenceParallel* attention,
              Arena& arena);

  // Of the layers, for CarriedStates.
  static std::vector<AttentionShape> LayerShapes(const ModelConfig& config,
                                                 const MicroBatchShape& shape);

  // How a forward gets the states before this rank's tokens.
  enum class States {
    kExchanged,  // from the other ranks
    kKept,       // they are where an earlier forward of the same tokens has left them
  };

  // A batch has the rows of shape, or those of a slice of shape.last, which may be none.
  //
  // Adds the batch's summed loss to loss_sum (kFloat64 [1, 1]) and prepares Backward, which will
  // give gradient_scale times the gradient of that sum. The gradients are written, or `adds` to
  // what they hold: a step's first micro-batch needs no zeros.
  absl::Status ForwardForTraining(const TokenBatch& batch, States states, double gradient_scale,
                                  Tensor loss_sum, bool adds);
  // `last`: no more macro-chunks or micro-batches follow in this step.
  absl::Status Backward(const TokenBatch& batch, bool last);
  // No more than what the next macro-chunk needs: the layers' states.
  absl::Status ForwardStates(const TokenBatch& batch);
  // Adds the summed loss alone.
  absl::Status ForwardForEvaluation(const TokenBatch& batch, Tensor loss_sum);

  // One layer's geometry, for benchmarks.
  const AttentionShape& attention_shape(int64_t layer) const { return attention_shapes_[layer]; }

 private:
  TokenMixer& MixerOf(int64_t layer) const {
    return config_.softmax(layer) ? *softmax_mixer_ : *linear_mixer_;
  }

  // A layer of a batch of `rows`.
  AttentionShape ShapeOf(int64_t layer, int64_t rows) const;
  // The part of `block` that a batch of `rows` uses, with what the macro-chunk carries.
  BlockActivations PartOf(BlockActivations block, int64_t layer, int64_t rows) const;
  // The activations of every block; tensors that are left out are the same in all.
  std::vector<BlockActivations> TakeBlocks(const ActivationOptions& options, Arena& arena);
  // Of the backend, for all sizes that may come.
  int64_t WorkspaceBytes() const;
  // Takes what `block` does not have yet, but for attention's memory; `linear`: whether it serves
  // a layer of linear attention.
  void TakeMissing(bool linear, int64_t projection_size, Arena& arena, BlockActivations* block);
  // What attention keeps of a layer, but for what is shared.
  void TakeAttention(const ActivationOptions& options, int64_t layer, Arena& arena,
                     BlockActivations* block);
  Tensor TakeActivation(int64_t rows, int64_t columns, Arena& arena) const;

  // Of a layer, where this rank has so many of the residual stream: with tensor parallelism those
  // of all ranks.
  int64_t ComputedRows(int64_t rows) const { return rows * config_.tensor_ranks; }

  // The embedding and `layers` blocks. The residual stream behind them is the sum of `stream` and
  // branch_output_.
  absl::StatusOr<Tensor> ForwardFirst(int64_t layers, const TokenBatch& batch, States states);
  // The normed input of a block, from the sum of the two.
  void NormInput(int64_t layer, Tensor stream, const BlockActivations& block);
  // Leaves the normalised last hidden states in final_normed_.
  absl::Status ForwardBlocks(const TokenBatch& batch, States states);
  // Returns what takes the place of `stream`.
  absl::StatusOr<Tensor> ForwardBlock(int64_t layer, int64_t rows, States states, Tensor stream);
  // What every forward of a batch begins with.
  void BeginForward(const TokenBatch& batch);
  // What other ranks need of a rank without tokens.
  absl::Status PassStates(States states);
  absl::Status PassGradients(bool last);
  // What is missing for the backward of `layer`.
  absl::Status Recompute(int64_t layer, BlockActivations& block);
  absl::Status BackwardBlock(int64_t layer, int64_t rows, bool last);
  // Tells the data parallelism of a block that comes, in the forward pass.
  absl::Status UseBlock(int64_t layer);
  void FillConstants();

  const ModelConfig config_;
  const MicroBatchShape shape_;
  const ParameterLayout& layout_;
  Backend& backend_;
  SequenceParallel& attention_;
  const std::unique_ptr<TokenMixer> linear_mixer_;
  const std::unique_ptr<TokenMixer> softmax_mixer_;  // null where no layer has it
  ParallelChannelMixer channel_mixer_;
  DataParallel& parallel_;
  Tensor learned_theta_;  // empty unless it is learned
  ModelWeights weights_;
  ModelWeights gradients_;
  double embedding_scale_;
  bool adds_ = false;           // to the gradients, in the backward to come
  int64_t first_position_ = 0;  // of the batch at hand
  DocumentMarks documents_;

  Tensor theta_;
  std::vector<AttentionShape> attention_shapes_;
  std::unique_ptr<ActivationPlan> activations_;
  const CarriedStates* const carried_;
  LanguageHead head_;
  Tensor final_input_;
  Tensor final_inverse_rms_;
  Tensor final_normed_;
  // What a mixer adds to the residual stream, before the next norm has taken it up.
  Tensor branch_output_;
  Tensor residual_gradient_;
  Tensor normed_gradient_;
  Tensor product_scratch_;
  TokenMixerScratch mixer_scratch_;
};

}  // namespace lasp::worker
