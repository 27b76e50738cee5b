// Gated linear attention, the token mixer of a TransNormer block:
//   [q, k, v, u] = x W_qkvu^T;  o = attention(silu(q), silu(k), v);  y = (u (.) SRMSNorm(o)) W_o^T
#pragma once

#include "absl/status/status.h"
#include "worker/device/backend.h"
#include "worker/model/activation_plan.h"
#include "worker/model/parameter_layout.h"
#include "worker/parallel/sequence_parallel.h"

namespace lasp::worker {

// Reads activations.mixer_normed, writes the activations up to `gated` and output [N, D].
absl::Status TokenMixerForward(Backend& backend, SequenceParallel& attention,
                               const AttentionShape& shape, const BlockWeights& weights,
                               BlockActivations& activations, Tensor output);

// Reads activations.mixer_normed, writes attention's memory: of the forward only what the next
// macro-chunk needs. q's columns of qkvu are written, as products of other sizes may be summed in
// another order.
absl::Status TokenMixerStates(Backend& backend, SequenceParallel& attention,
                              const AttentionShape& shape, const BlockWeights& weights,
                              BlockActivations& activations);

// What is `missing` of the activations that a forward left, from the rest, in the same bits; for a
// missing block output [N, D] too, from mixer_normed.
absl::Status TokenMixerRecompute(Backend& backend, SequenceParallel& attention,
                                 const AttentionShape& shape, const BlockWeights& weights,
                                 Recomputation missing, BlockActivations& activations,
                                 Tensor output);

// Scratch shared by all blocks: gated_gradient [N, D], qkvu_gradient [N, 4 D].
struct TokenMixerScratch {
  Tensor gated_gradient;
  Tensor qkvu_gradient;
};

// Writes the gradients of the weights, or `adds` to them (always to that of theta), and writes
// input_gradient [N, D], the gradient of mixer_normed.
absl::Status TokenMixerBackward(Backend& backend, SequenceParallel& attention,
                                const AttentionShape& shape, const BlockWeights& weights,
                                const BlockActivations& activations, Tensor output_gradient,
                                const TokenMixerScratch& scratch, BlockWeights& gradients,
                                bool adds, Tensor input_gradient);

}  // namespace lasp::worker
