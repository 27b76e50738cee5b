// kernels/rotary_positions.h on the GPU: angles in fp64, reduced to a turn, sines and cosines in
// fp32 (of fp64 angles), each value rounded once. Memory bound: each value read and written once.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/bfloat16.h"
#include "kernels/rotary_positions.h"

namespace lasp::kernels::cuda {

// Head sizes up to 256.
cudaError_t TurnByPositions(const RotaryPositionsArgs<Bf16>& args, cudaStream_t stream);

}  // namespace lasp::kernels::cuda
