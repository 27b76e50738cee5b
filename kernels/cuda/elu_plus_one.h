// kernels/elu_plus_one.h on the GPU.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/bfloat16.h"
#include "kernels/elu_plus_one.h"

namespace lasp::kernels::cuda {

cudaError_t EluPlusOneForward(const EluPlusOneForwardArgs<Bf16>& args, cudaStream_t stream);
cudaError_t EluPlusOneBackward(const EluPlusOneBackwardArgs<Bf16>& args, cudaStream_t stream);

}  // namespace lasp::kernels::cuda
