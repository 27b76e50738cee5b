// What the forward pass leaves for the backward pass, and who owns that memory.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "worker/device/tensor.h"
#include "worker/parallel/sequence_parallel.h"

namespace lasp::worker {

// One block's activations; N tokens, D hidden, G gated MLP.
struct BlockActivations {
  Tensor mixer_input;        // [N, D] the residual stream before the mixer
  Tensor mixer_inverse_rms;  // [N, 1]
  Tensor mixer_normed;       // [N, D]
  Tensor qkvu;               // [N, 4 D] the projection, before the activation
  Tensor qk;                 // [N, 2 D] silu of its first half
  AttentionMemory attention;
  Tensor attention_output;       // [N, D]
  Tensor attention_inverse_rms;  // [N, 1]
  Tensor gated;                  // [N, D] u (.) SRMSNorm(o)
  Tensor channel_input;          // [N, D] the residual stream before the MLP
  Tensor channel_inverse_rms;    // [N, 1]
  Tensor channel_normed;         // [N, D]
  Tensor l1_l2;                  // [N, 2 G]
};

class ActivationPlan {
 public:
  virtual ~ActivationPlan() = default;

  // Where the forward of `layer` writes.
  virtual BlockActivations& ForForward(int64_t layer) = 0;
  // The activations of `layer`, complete. The backward of `layer` may overwrite them.
  virtual BlockActivations& ForBackward(int64_t layer) = 0;
};

// Keeps every block's activations from forward to backward. `take(layer)` allocates a block's.
std::unique_ptr<ActivationPlan> CreateKeepPlan(
    int64_t layers, const std::function<BlockActivations(int64_t layer)>& take);

}  // namespace lasp::worker
