// kernels/sinusoidal_positions.h on the GPU: sums in fp32, rounded once.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/bfloat16.h"
#include "kernels/sinusoidal_positions.h"

namespace lasp::kernels::cuda {

cudaError_t AddSinusoidalPositions(const SinusoidalPositionsArgs<Bf16>& args, cudaStream_t stream);

}  // namespace lasp::kernels::cuda
