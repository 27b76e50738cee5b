// The states at the segments' borders, from what each segment adds.
#pragma once

#include "kernels/cuda/linear_attention.h"
#include "kernels/cuda/linear_attention_segments.h"

namespace lasp::kernels::cuda {

// In the order of the recurrence (for the gradient from the last segment back), each segment's
// local state in `states` [batch, heads, segments, StateRows, value_size] is replaced by what the
// segments before (after) it leave. `total` gets the slice's own state; null: not wanted, and the
// local state of the last segment in order is not read.
template <bool kGradient>
cudaError_t ScanSegmentStates(const LinearAttentionShape& shape, const Segments& segments,
                              float* states, float* total, cudaStream_t stream);

}  // namespace lasp::kernels::cuda
