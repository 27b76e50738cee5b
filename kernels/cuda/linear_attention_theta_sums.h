// The parts of theta's gradient, which thread blocks write and one launch adds up in a fixed order.
#pragma once

#include "kernels/cuda/linear_attention.h"

namespace lasp::kernels::cuda {

// sums: [batch, heads, 2 segments, key_size]; theta_gradient [heads, key_size] is added to.
cudaError_t AddThetaSums(const LinearAttentionShape& shape, int segments, const float* sums,
                         float* theta_gradient, cudaStream_t stream);

}  // namespace lasp::kernels::cuda
