// A GPU behind SplitNormOps.
#pragma once

#include <cstdint>

#include "worker/device/cuda_context.h"
#include "worker/device/split_norm_ops.h"

namespace lasp::worker {

class CudaSplitNorm : public SplitNormOps {
 public:
  // Must outlive this.
  explicit CudaSplitNorm(CudaContext* context) : context_(*context) {}

  void SumsOfSquares(Tensor input, Tensor sums) override;
  void Forward(int64_t whole_width, Tensor input, Tensor gate, Tensor output,
               Tensor inverse_rms) override;
  void SumsOfProducts(Tensor input, Tensor gate, Tensor output_gradient, Tensor sums) override;
  void Backward(int64_t whole_width, Tensor input, Tensor gate, Tensor inverse_rms, Tensor sums,
                Tensor output_gradient, Tensor input_gradient, Tensor gate_gradient) override;

 private:
  CudaContext& context_;
};

}  // namespace lasp::worker
