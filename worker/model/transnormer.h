// TransNormerLLM, first version (lightning attention's first model):
//   x = sqrt(D) Embed(ids)
//   x = x + GLA_l(SRMSNorm(x));  x = x + SGLU_l(SRMSNorm(x))      for each layer
//   logits = SRMSNorm(x) W_head^T
// with LRPE on the first layer's queries and keys and one decay a head and layer. All gradients are
// written by hand.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "worker/device/arena.h"
#include "worker/device/backend.h"
#include "worker/model/activation_plan.h"
#include "worker/model/language_head.h"
#include "worker/model/model_config.h"
#include "worker/model/parameter_layout.h"
#include "worker/model/token_mixer.h"
#include "worker/parallel/data_parallel.h"
#include "worker/parallel/sequence_parallel.h"

namespace lasp::worker {

// This rank's slice of a micro-batch: kInt32 [sequences * tokens, 1] each.
struct TokenBatch {
  Tensor ids;
  Tensor labels;
};

// [1, layout.count()] each.
struct ParameterTensors {
  Tensor masters;    // the parameters
  Tensor weights;    // their copy for the products, or the same
  Tensor gradients;  // of the accumulation type, as the masters
};

// Not thread-safe.
class TransNormer {
 public:
  // Takes all its memory from `arena`. All but `config`, `shape` and `arena` must outlive this.
  TransNormer(const ModelConfig& config, const MicroBatchShape& shape,
              const ParameterLayout* layout, const ParameterTensors& parameters, Backend* backend,
              SequenceParallel* attention, Arena& arena);

  // Adds the batch's summed loss to loss_sum (kFloat64 [1, 1]) and prepares Backward, which will
  // give gradient_scale times the gradient of that sum. The gradients are written, or `adds` to
  // what they hold: a step's first micro-batch needs no zeros.
  absl::Status ForwardForTraining(const TokenBatch& batch, double gradient_scale, Tensor loss_sum,
                                  bool adds);
  // `reducer` is told as they become final; null while more micro-batches
  // follow.
  absl::Status Backward(const TokenBatch& batch, DataParallel* reducer);
  // Adds the summed loss alone.
  absl::Status ForwardForEvaluation(const TokenBatch& batch, Tensor loss_sum);

  // One layer's geometry, for benchmarks.
  const AttentionShape& attention_shape(int64_t layer) const { return attention_shapes_[layer]; }

 private:
  BlockActivations TakeBlock(int64_t layer, Arena& arena);
  // Leaves the normalised last hidden states in final_normed_.
  absl::Status ForwardBlocks(const TokenBatch& batch);
  void FillConstants();

  const ModelConfig config_;
  const MicroBatchShape shape_;
  const ParameterLayout& layout_;
  Backend& backend_;
  SequenceParallel& attention_;
  Tensor learned_theta_;  // the master; empty unless it is learned
  ModelWeights weights_;
  ModelWeights gradients_;
  double embedding_scale_;
  bool adds_ = false;  // to the gradients, in the backward to come

  Tensor theta_;
  std::vector<AttentionShape> attention_shapes_;
  std::unique_ptr<ActivationPlan> activations_;
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
