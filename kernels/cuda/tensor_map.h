// Tensor maps for the copy engine, made on the host.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/bfloat16.h"
#include "kernels/linear_attention.h"

namespace lasp::kernels::cuda {

// A map of a [batch, tokens, heads, width] view for boxes of 64 columns by `rows` tokens of one
// head, stored with SWIZZLE_128B. Coordinates are (column, head, token, batch); what a box has
// outside of the view reads as zeros and is not written. The driver's function is found at run
// time.
cudaError_t MakeHeadsMap(const HeadsView<const Bf16>& view, int64_t batch, int64_t tokens,
                         int64_t heads, int64_t width, uint32_t rows, CUtensorMap* map);

}  // namespace lasp::kernels::cuda
