// Linear attention as a recurrence over single tokens in fp64 on the GPU, for lengths that
// kernels/reference (to which a test holds it) would take hours for, and what the tests do to large
// arrays that stay there.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/bfloat16.h"
#include "kernels/linear_attention.h"

namespace lasp::kernels {

struct Recurrence {
  LinearAttentionShape shape;       // slopes and theta in device memory
  const uint8_t* starts = nullptr;  // [batch, tokens], 1 where a document starts, or null
  HeadsView<const cuda::Bf16> q;
  HeadsView<const cuda::Bf16> k;
  HeadsView<const cuda::Bf16> v;
  HeadsView<const cuda::Bf16> output_gradient;
  const float* state_in = nullptr;
  const float* state_gradient_in = nullptr;
  // [batch, tokens, heads, width], each null where it is not wanted; the states [batch, heads,
  // StateRows, value_size].
  double* output = nullptr;
  double* q_gradient = nullptr;
  double* k_gradient = nullptr;
  double* v_gradient = nullptr;
  double* state_out = nullptr;           // after the last token
  double* state_gradient_out = nullptr;  // before the first token
  // [heads, key_size], added to, where both gradients are wanted and no states come in. By
  // positions: in fp64 they may be.
  double* theta_gradient = nullptr;
};

cudaError_t RunRecurrence(const Recurrence& recurrence);

// values[i] = deviation * a normal random number that depends on seed and i alone.
cudaError_t FillNormal(int64_t count, uint64_t seed, float deviation, cuda::Bf16* values);
cudaError_t FillNormal(int64_t count, uint64_t seed, float deviation, float* values);

// ||x - reference|| / ||reference|| of each head, the worst; NaN if any is.
double WorstHeadError(const HeadsView<const cuda::Bf16>& x, const double* reference, int64_t batch,
                      int64_t tokens, int64_t heads, int64_t width);
// Of states [batch, heads, elements].
double WorstHeadError(const float* x, const double* reference, int64_t pairs, int64_t elements);

}  // namespace lasp::kernels
