// kernels/attention_normaliser.h on the GPU: queries, keys and outputs in bf16, sums and
// denominators in fp32. A sequence is cut into segments, a thread block each; running sums begin at
// the sums of the segments before. Nothing adds atomically: equal calls give equal bits.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/attention_normaliser.h"
#include "kernels/cuda/bfloat16.h"

namespace lasp::kernels::cuda {

// Elements, fp32, of `workspace` below.
int64_t NormaliserWorkspaceElements(const LinearAttentionShape& shape);

struct KeySumArgs {
  LinearAttentionShape shape;
  HeadsView<const Bf16> k;
  float* workspace = nullptr;
  float* sum = nullptr;  // z_loc: [batch, heads, key_size]
};

struct NormaliseArgs {
  LinearAttentionShape shape;
  HeadsView<const Bf16> q;
  HeadsView<const Bf16> k;
  const float* sum_in = nullptr;  // z_in; null: zeros
  HeadsView<Bf16> output;         // num; o on return
  float* workspace = nullptr;
  float* denominators = nullptr;  // den: [batch, tokens, heads], written
};

struct SplitGradientArgs {
  LinearAttentionShape shape;
  HeadsView<const Bf16> output;   // o
  HeadsView<Bf16> gradient;       // do; dnum on return
  float* denominators = nullptr;  // den; e on return
};

struct QuerySumArgs {
  LinearAttentionShape shape;
  HeadsView<const Bf16> q;
  const float* denominator_gradient = nullptr;  // e: [batch, tokens, heads]
  float* workspace = nullptr;
  float* sum = nullptr;  // dz_loc
};

struct NormaliserQueryGradientArgs {
  LinearAttentionShape shape;
  HeadsView<const Bf16> k;
  const float* denominator_gradient = nullptr;
  const float* sum_in = nullptr;  // z_in; null: zeros
  float* workspace = nullptr;
  HeadsView<Bf16> q_gradient;  // added to
};

struct NormaliserKeyGradientArgs {
  LinearAttentionShape shape;
  HeadsView<const Bf16> q;  // data null: the keys are of another slice than the queries
  const float* denominator_gradient = nullptr;
  const float* sum_gradient_in = nullptr;  // dz_in; null: zeros
  float* workspace = nullptr;
  HeadsView<Bf16> k_gradient;  // added to
};

// A hop of the states of a layer, or of their gradients: out = in + local, without decay. Where
// there are document marks `in` counts only for sequences in whose slice no document starts, and
// the states are all of the layer's: [batch, heads, key_size, value_size] and behind them the sums
// [batch, heads, key_size]. Otherwise any part of them.
struct NormalisedHopArgs {
  LinearAttentionShape shape;
  int64_t count = 0;
  const float* state_in = nullptr;  // null: zeros
  const float* local = nullptr;
  float* state_out = nullptr;  // may be `state_in` or `local`
};

cudaError_t AddNormalisedStates(const NormalisedHopArgs& args, cudaStream_t stream);

// Document marks are in device memory. Sizes are multiples of 8 up to 128, views' pointers and
// strides of 16 bytes; cudaErrorInvalidValue otherwise.
cudaError_t KeySum(const KeySumArgs& args, cudaStream_t stream);
cudaError_t Normalise(const NormaliseArgs& args, cudaStream_t stream);
cudaError_t SplitGradient(const SplitGradientArgs& args, cudaStream_t stream);
cudaError_t QuerySum(const QuerySumArgs& args, cudaStream_t stream);
cudaError_t AddQueryGradients(const NormaliserQueryGradientArgs& args, cudaStream_t stream);
cudaError_t AddKeyGradients(const NormaliserKeyGradientArgs& args, cudaStream_t stream);

}  // namespace lasp::kernels::cuda
