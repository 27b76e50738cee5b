// kernels/gated_rms_norm.h on the GPU.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/bfloat16.h"
#include "kernels/gated_rms_norm.h"

namespace lasp::kernels::cuda {

cudaError_t GatedRmsNormForward(const GatedRmsNormForwardArgs<Bf16, float>& args,
                                cudaStream_t stream);
cudaError_t GatedRmsNormBackward(const GatedRmsNormBackwardArgs<Bf16, float>& args,
                                 cudaStream_t stream);

}  // namespace lasp::kernels::cuda
