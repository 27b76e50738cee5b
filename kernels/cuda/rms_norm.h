// kernels/rms_norm.h on the GPU. What is normalised is the sum as rounded to bf16, which is what
// the backward reads.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/bfloat16.h"
#include "kernels/rms_norm.h"

namespace lasp::kernels::cuda {

cudaError_t RmsNormForward(const RmsNormForwardArgs<Bf16, float>& args, cudaStream_t stream);
cudaError_t RmsNormBackward(const RmsNormBackwardArgs<Bf16, float>& args, cudaStream_t stream);

}  // namespace lasp::kernels::cuda
