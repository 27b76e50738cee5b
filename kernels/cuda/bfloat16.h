// The type of activations and compute weights on the GPU.
#pragma once

#include <cuda_bf16.h>

namespace lasp::kernels::cuda {

using Bf16 = __nv_bfloat16;

}  // namespace lasp::kernels::cuda
