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

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/device/arena.h"
#include "worker/device/backend.h"
#include "worker/model/block_memory.h"
#include "worker/model/block_stack.h"
#include "worker/model/language_head.h"
#include "worker/model/model_config.h"
#include "worker/model/parameter_layout.h"
#include "worker/model/token_batch.h"
#include "worker/parallel/data_parallel.h"
#include "worker/parallel/sequence_parallel.h"

namespace lasp::worker {

// What the model reads and writes of its parameters.
struct ParameterTensors {
  // Told of each use of a unit of the layout (ParameterLayout::units), and of its gradients.
  DataParallel* parallel = nullptr;
  // Where learned frequencies are before a forward pass, of the accumulation type: [heads,
  // head_size]; empty unless they are learned.
  Tensor learned_theta;
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

  TransNormer(const TransNormer&) = delete;
  TransNormer& operator=(const TransNormer&) = delete;

  using States = StatesBefore;

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

 private:
  // What every forward of a batch begins with.
  void BeginForward(const TokenBatch& batch);
  // The embedding and `layers` blocks. The residual stream behind them is the sum of what is
  // returned and of the blocks' Branch.
  absl::StatusOr<Tensor> ForwardFirst(int64_t layers, const TokenBatch& batch, States states);
  // Leaves the normalised last hidden states in final_normed_.
  absl::Status ForwardBlocks(const TokenBatch& batch, States states);

  // Whether this rank only does what the others need of it. With tensor parallelism a rank without
  // tokens has heads of theirs.
  bool SitsOut(const TokenBatch& batch) const {
    return batch.ids.rows == 0 && attention_.tensor_parallel() == nullptr;
  }

  // What other ranks need of a rank without tokens.
  absl::Status PassStates(States states);
  absl::Status PassGradients(bool last);

  const ModelConfig config_;
  const int64_t sequences_;
  const ParameterLayout& layout_;
  Backend& backend_;
  SequenceParallel& attention_;
  DataParallel& parallel_;
  const Tensor learned_theta_;  // empty unless it is learned
  ModelWeights weights_;
  ModelWeights gradients_;
  const double embedding_scale_;
  LanguageHead head_;
  BlockStack blocks_;
  Tensor final_input_;
  Tensor final_inverse_rms_;
  Tensor final_normed_;
  Tensor residual_gradient_;
  Tensor normed_gradient_;
  bool adds_ = false;  // to the gradients, in the backward to come
};

}  // namespace lasp::worker
