// kernels/global_norm.h on the GPU: the sum of squares of fp32 values, in fp64.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/global_norm.h"

namespace lasp::kernels::cuda {

// What SumOfSquares needs, aligned to 16 bytes; its content need not be kept.
int64_t SumOfSquaresWorkspaceBytes();

// The order of the sum depends on the count alone.
cudaError_t SumOfSquares(const SumOfSquaresArgs<float>& args, void* workspace, cudaStream_t stream);

}  // namespace lasp::kernels::cuda
