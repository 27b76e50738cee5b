// kernels/silu.h on the GPU.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/bfloat16.h"
#include "kernels/silu.h"

namespace lasp::kernels::cuda {

cudaError_t SiluForward(const SiluForwardArgs<Bf16>& args, cudaStream_t stream);
cudaError_t SiluBackward(const SiluBackwardArgs<Bf16>& args, cudaStream_t stream);

}  // namespace lasp::kernels::cuda
