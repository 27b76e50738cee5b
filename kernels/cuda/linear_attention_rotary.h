// Linear attention with LRPE: what the launchers of linear_attention.h call where there is theta.
#pragma once

#include "kernels/cuda/linear_attention.h"
#include "kernels/cuda/linear_attention_segments.h"

namespace lasp::kernels::cuda {

// What each segment from `first_segment` on adds to the state; `states` is indexed by segments.
struct SegmentStateArgs {
  LinearAttentionProblem problem;
  Segments segments;
  HeadsView<const Bf16> keys;
  HeadsView<const Bf16> values;
  int first_segment = 0;
  int count = 0;
  float* states = nullptr;
};

template <bool kGradient>
cudaError_t RotarySegmentStates(const SegmentStateArgs& args, cudaStream_t stream);

cudaError_t RotaryOutput(const OutputArgs& args, cudaStream_t stream);
cudaError_t RotaryQueryGradient(const QueryGradientArgs& args, cudaStream_t stream);
cudaError_t RotaryKeyGradient(const KeyValueGradientArgs& args, cudaStream_t stream);
cudaError_t RotaryValueGradient(const KeyValueGradientArgs& args, cudaStream_t stream);

}  // namespace lasp::kernels::cuda
