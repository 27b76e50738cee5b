// The gated norm of attention's output, u (.) SRMSNorm(o), over all heads, wherever they are.
#pragma once

#include "absl/status/status.h"
#include "worker/device/backend.h"
#include "worker/parallel/tensor_parallel.h"

namespace lasp::worker {

// Tensors as Backend::GatedRmsNormForward has them, of the heads that this rank has. Errors of the
// communicator.
class GatedNorm {
 public:
  // Both must outlive this; without `tensor_parallel` the rank has all heads.
  GatedNorm(Backend* backend, TensorParallel* tensor_parallel)
      : backend_(*backend), tensor_parallel_(tensor_parallel) {}

  absl::Status Forward(Tensor input, Tensor gate, Tensor output, Tensor inverse_rms);
  // input_gradient may be output_gradient.
  absl::Status Backward(Tensor input, Tensor gate, Tensor inverse_rms, Tensor output_gradient,
                        Tensor input_gradient, Tensor gate_gradient);

 private:
  Backend& backend_;
  TensorParallel* const tensor_parallel_;
};

}  // namespace lasp::worker
