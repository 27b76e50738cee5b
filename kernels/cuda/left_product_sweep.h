// The kernel of the left product, LP(X, Y, Z) = ((X Y^T) (.) M) Z.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/bfloat16.h"
#include "kernels/linear_attention.h"

namespace lasp::kernels::cuda {

struct LeftProductSweep {
  LinearAttentionShape shape;  // without theta
  // X and Z's side lie `distance` tokens apart: 0, or at least shape.tokens.
  int64_t distance = 0;
  // Whether rows are the earlier tokens: row i sees column j where distance + j >= i. Otherwise
  // where distance + i >= j.
  bool reversed = false;
  // The scores are the sum of these products: one, or for doubled keys two.
  int halves = 1;
  HeadsView<const Bf16> x[2];
  HeadsView<const Bf16> y[2];
  int64_t score_size = 0;  // columns of x and y
  HeadsView<const Bf16> z = {};
  HeadsView<Bf16> output = {};
  int64_t output_size = 0;  // columns of z and the output
  bool adds = false;        // to the output
};

cudaError_t RunLeftProductSweep(const LeftProductSweep& sweep, cudaStream_t stream);

}  // namespace lasp::kernels::cuda
