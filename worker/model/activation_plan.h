// What the forward pass leaves for the backward pass, and who owns that memory.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/device/host_stash.h"
#include "worker/device/tensor.h"
#include "worker/parallel/sequence_parallel.h"
#include "worker/parallel/softmax_parallel.h"

namespace lasp::worker {

// One block's activations; N tokens, D hidden, G gated MLP.
struct BlockActivations {
  Tensor mixer_input;        // [N, D] the residual stream before the mixer
  Tensor mixer_inverse_rms;  // [N, 1]
  Tensor mixer_normed;       // [N, D]
  // [N, 4 D] the projection, before the activation; without u [N, 3 D]; of softmax attention [N, D
  // + 2 kv_heads head_size], queries and keys turned by their positions.
  Tensor qkvu;
  Tensor qk;  // [N, 2 D] queries and keys behind it
  AttentionMemory attention;
  Tensor attention_output;       // [N, D]
  Tensor attention_inverse_rms;  // [N, 1] where there is a gate
  Tensor gated;                  // [N, D] u (.) SRMSNorm(o), where there is a gate
  Tensor denominators;           // [N, heads] of a normalised layer, of the accumulation type
  SoftmaxMemory softmax;
  Tensor channel_input;        // [N, D] the residual stream before the MLP
  Tensor channel_inverse_rms;  // [N, 1]
  Tensor channel_normed;       // [N, D]
  Tensor l1_l2;                // [N, 2 G]
};

// What of a block's activations is not kept: all blocks have one place for it, and the backward
// computes it anew.
enum class Recomputation : uint8_t {
  kNothing,
  // What takes no product: the normed inputs, queries and keys behind their activation, the gated
  // output.
  kCheapest,
  // All but the block's input and the attention state that it received.
  kBlock,
};

class ActivationPlan {
 public:
  virtual ~ActivationPlan() = default;

  // Where the forward of `layer` writes. Layers are taken from the first to the last.
  virtual absl::StatusOr<BlockActivations> ForForward(int64_t layer) = 0;
  // The forward of `layer` has written its mixer_input.
  virtual absl::Status InputWritten(int64_t layer) = 0;
  // The activations of `layer`, but for what is missing. The backward of `layer` may overwrite
  // them. Layers are taken from the last to the first.
  virtual absl::StatusOr<BlockActivations> ForBackward(int64_t layer) = 0;
  // What has to be computed anew before the backward of `layer`.
  virtual Recomputation Missing(int64_t layer) const = 0;
};

// Keeps the blocks' activations on the device, but for what `recomputation` leaves out: there the
// tensors of all `blocks` are the same.
std::unique_ptr<ActivationPlan> CreateKeepPlan(std::vector<BlockActivations> blocks,
                                               Recomputation recomputation);

// Keeps the blocks' inputs in the slots of `stash`, one a block, and leaves out the rest as kBlock
// does. On the device two inputs take turns: blocks[i] and blocks[i + 2] have the same. `stash` is
// null while memory is measured.
std::unique_ptr<ActivationPlan> CreateOffloadPlan(std::vector<BlockActivations> blocks,
                                                  HostStash* stash);

}  // namespace lasp::worker
