// kernels/left_product_attention.h on Hopper GPUs: queries against keys and values that lie
// `distance` tokens before them, without states, at the cost of a softmax attention's products.
//
// Activations are bf16, sums fp32. Output and gradients are four runs of one kernel,
// LP(X, Y, Z) = ((X Y^T) (.) M) Z: o = LP(q, k, v), dq = LP(do, v, k), and with time reversed
// dk = LP(v, do, q), dv = LP(k, q, do). Nothing is left out, however far a decay has gone: a
// baseline is to pay for its products.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/bfloat16.h"
#include "kernels/left_product_attention.h"

namespace lasp::kernels::cuda {

// Elements, bf16, of `workspace` below: with theta the doubled queries and keys and their
// gradients, otherwise none.
int64_t LeftProductWorkspaceElements(const LinearAttentionShape& shape);

// Sizes as in kernels/cuda/linear_attention.h; slopes and theta are in device memory.
struct LeftProductOutputArgs {
  LinearAttentionShape shape;
  int64_t distance = 0;  // 0, or at least shape.tokens
  HeadsView<const Bf16> q;
  HeadsView<const Bf16> k;
  HeadsView<const Bf16> v;
  bool adds = false;  // to the output
  HeadsView<Bf16> output;
  Bf16* workspace = nullptr;
};

// Theta, where there is one, is fixed.
struct LeftProductGradientsArgs {
  LinearAttentionShape shape;
  int64_t distance = 0;
  HeadsView<const Bf16> q;
  HeadsView<const Bf16> k;
  HeadsView<const Bf16> v;
  HeadsView<const Bf16> output_gradient;
  bool adds = false;  // to the gradient of q
  HeadsView<Bf16> q_gradient;
  HeadsView<Bf16> k_gradient;  // written
  HeadsView<Bf16> v_gradient;  // written
  Bf16* workspace = nullptr;
};

// Views' pointers and strides are multiples of 16 bytes. cudaErrorInvalidValue for sizes, strides
// or distances that are not taken.
cudaError_t LeftProductOutput(const LeftProductOutputArgs& args, cudaStream_t stream);
cudaError_t LeftProductGradients(const LeftProductGradientsArgs& args, cudaStream_t stream);

}  // namespace lasp::kernels::cuda
