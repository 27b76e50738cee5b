// kernels/split_gated_rms_norm.h on the GPU. The sums are added up in a fixed order.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/bfloat16.h"
#include "kernels/split_gated_rms_norm.h"

namespace lasp::kernels::cuda {

cudaError_t SplitNormSums(const SplitNormSumsArgs<Bf16, float>& args, cudaStream_t stream);
cudaError_t SplitGatedRmsNormForward(const SplitGatedRmsNormForwardArgs<Bf16, float>& args,
                                     cudaStream_t stream);
cudaError_t SplitGatedRmsNormBackward(const SplitGatedRmsNormBackwardArgs<Bf16, float>& args,
                                      cudaStream_t stream);

}  // namespace lasp::kernels::cuda
