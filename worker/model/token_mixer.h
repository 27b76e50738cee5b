// What a block does with the tokens before each token.
#pragma once

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "worker/device/backend.h"
#include "worker/model/activation_plan.h"
#include "worker/model/model_config.h"
#include "worker/model/parameter_layout.h"
#include "worker/parallel/sequence_parallel.h"
#include "worker/parallel/softmax_parallel.h"
#include "worker/parallel/tensor_parallel.h"

namespace lasp::worker {

// Scratch shared by all blocks: gated_gradient [N, D], qkvu_gradient [N, projection size].
struct TokenMixerScratch {
  Tensor gated_gradient;
  Tensor qkvu_gradient;
};

// Errors are those of the attention. Not thread-safe.
class TokenMixer {
 public:
  virtual ~TokenMixer() = default;

  // Reads activations.mixer_normed, writes the activations up to the one that the output projection
  // takes, and output [N, D].
  virtual absl::Status Forward(const AttentionShape& shape, const BlockWeights& weights,
                               BlockActivations& activations, Tensor output) = 0;

  // Reads activations.mixer_normed, writes attention's memory: of the forward only what the next
  // macro-chunk needs (UNIMPLEMENTED of softmax attention, which has no state). q's columns of qkvu
  // are written, as products of other sizes may be summed in another order.
  virtual absl::Status States(const AttentionShape& shape, const BlockWeights& weights,
                              BlockActivations& activations) = 0;

  // What is `missing` of the activations that a forward left, from the rest, in the same bits; for
  // a missing block output [N, D] too, from mixer_normed.
  virtual absl::Status Recompute(const AttentionShape& shape, const BlockWeights& weights,
                                 Recomputation missing, BlockActivations& activations,
                                 Tensor output) = 0;

  // Writes the gradients of the weights, or `adds` to them (always to that of theta), and writes
  // input_gradient [N, D], the gradient of mixer_normed.
  virtual absl::Status Backward(const AttentionShape& shape, const BlockWeights& weights,
                                const BlockActivations& activations, Tensor output_gradient,
                                const TokenMixerScratch& scratch, BlockWeights& gradients,
                                bool adds, Tensor input_gradient) = 0;
};

// Gated linear attention, TransNormer's:
//   [q, k, v, u] = x W_qkvu^T;  o = attention(silu(q), silu(k), v);  y = (u (.) SRMSNorm(o)) W_o^T
// Both must outlive the result.
std::unique_ptr<TokenMixer> CreateGatedMixer(Backend* backend, SequenceParallel* attention);

// Normalised linear attention, the Linear Transformer's (arXiv 2006.16236), phi(z) = elu(z) + 1:
//   [q, k, v] = x W_qkv^T;  o = attention(phi(q), phi(k), v);  y = o W_o^T
// for layers whose shapes are normalised, on a backend that has LinearTransformerOps.
std::unique_ptr<TokenMixer> CreateNormalisedMixer(Backend* backend, SequenceParallel* attention);

// Softmax attention with grouped queries and rotary positions (kernels/softmax_attention.h,
// kernels/rotary_positions.h):
//   [q, k, v] = x W_qkv^T;  o = attention(turned(q), turned(k), v);  y = o W_o^T
// for layers whose shapes have kv_heads, on a backend that has SoftmaxOps. The three columns of
// BlockActivations.qkvu are as wide as the queries, the keys and the values of the shape's heads.
std::unique_ptr<TokenMixer> CreateSoftmaxMixer(Backend* backend, SoftmaxParallel* attention,
                                               double rotary_base);

// Gathers the tokens of all ranks for `inner`, which computes this rank's heads: mixer_normed,
// output and their gradients are of this rank's tokens, everything else of all.
std::unique_ptr<TokenMixer> CreateTensorParallelMixer(TensorParallel* tensor_parallel,
                                                      std::unique_ptr<TokenMixer> inner);

// `mixer`, as `attention` shares out layers.
inline std::unique_ptr<TokenMixer> SharedOut(SequenceParallel* attention,
                                             std::unique_ptr<TokenMixer> mixer) {
  TensorParallel* const tensor_parallel = attention->tensor_parallel();
  return tensor_parallel == nullptr ? std::move(mixer)
                                    : CreateTensorParallelMixer(tensor_parallel, std::move(mixer));
}

// The architecture's linear attention, and softmax attention, as `attention` shares them out.
inline std::unique_ptr<TokenMixer> CreateTokenMixer(const ModelConfig& config, Backend* backend,
                                                    SequenceParallel* attention) {
  return SharedOut(attention, config.linear_transformer ? CreateNormalisedMixer(backend, attention)
                                                        : CreateGatedMixer(backend, attention));
}

inline std::unique_ptr<TokenMixer> CreateSoftmaxTokenMixer(const ModelConfig& config,
                                                           Backend* backend,
                                                           SequenceParallel* attention) {
  return SharedOut(attention,
                   CreateSoftmaxMixer(backend, attention->softmax(), config.rotary_base));
}

}  // namespace lasp::worker
