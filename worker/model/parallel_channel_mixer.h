// The gated MLP of a block (channel_mixer.h) where an SP group computes it: each rank all columns
// of its tokens or, with tensor parallelism, its columns of all tokens.
#pragma once

#include "absl/status/status.h"
#include "worker/device/backend.h"
#include "worker/model/activation_plan.h"
#include "worker/model/parameter_layout.h"
#include "worker/parallel/tensor_parallel.h"

namespace lasp::worker {

// As the functions of channel_mixer.h; l1_l2 and scratch have the rows of all tokens that this rank
// computes on. Errors of the communicator. Not thread-safe.
class ParallelChannelMixer {
 public:
  // Both must outlive this; tensor_parallel may be null.
  ParallelChannelMixer(Backend* backend, TensorParallel* tensor_parallel)
      : backend_(*backend), tensor_parallel_(tensor_parallel) {}

  absl::Status Forward(const BlockWeights& weights, BlockActivations& activations, Tensor scratch,
                       Tensor output);
  absl::Status Recompute(const BlockWeights& weights, BlockActivations& activations);
  absl::Status Backward(const BlockWeights& weights, const BlockActivations& activations,
                        Tensor output_gradient, Tensor scratch, BlockWeights& gradients, bool adds,
                        Tensor input_gradient);

 private:
  Backend& backend_;
  TensorParallel* const tensor_parallel_;
};

}  // namespace lasp::worker
