// Tensor maps for the copy engine, made on the host.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <initializer_list>

#include "kernels/cuda/bfloat16.h"
#include "kernels/linear_attention.h"

namespace lasp::kernels::cuda {

// A map to make of a [batch, tokens, heads, width] view.
struct HeadsMap {
  HeadsView<const Bf16> view;
  int64_t width;
  CUtensorMap* to;
};

// Maps of views of one shape's batch, tokens and heads, for boxes of 64 columns by 64 tokens of one
// head, stored with SWIZZLE_128B. Coordinates are (column, head, token, batch); what a box has
// outside of the view reads as zeros and is not written. The driver's function is found at run
// time.
cudaError_t MakeHeadsMaps(const LinearAttentionShape& shape, std::initializer_list<HeadsMap> maps);

}  // namespace lasp::kernels::cuda
