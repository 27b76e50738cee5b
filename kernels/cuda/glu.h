// kernels/glu.h on the GPU.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/bfloat16.h"
#include "kernels/glu.h"

namespace lasp::kernels::cuda {

cudaError_t GluForward(const GluForwardArgs<Bf16>& args, cudaStream_t stream);
cudaError_t GluBackward(const GluBackwardArgs<Bf16>& args, cudaStream_t stream);

}  // namespace lasp::kernels::cuda
