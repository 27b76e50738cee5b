// How a sequence is cut: chunks of 64 tokens, segments of whole chunks, one thread block a segment.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/linear_attention.h"

namespace lasp::kernels::cuda {

inline constexpr int kChunk = static_cast<int>(kLinearAttentionBlock);

// The sizes that kernels need, and which part of them a thread block has.
struct Segments {
  int64_t tokens = 0;
  int heads = 0;
  int batch = 0;
  int chunks = 0;          // of a sequence
  int segment_chunks = 0;  // of a segment; the last may have fewer
  int count = 0;           // segments of a sequence
  const double* slopes = nullptr;
  const uint64_t* marks = nullptr;  // [batch, chunks] or null

  __host__ __device__ int FirstChunk(int segment) const { return segment * segment_chunks; }

  __host__ __device__ int EndChunk(int segment) const {
    const int end = (segment + 1) * segment_chunks;
    return end < chunks ? end : chunks;
  }

  __host__ __device__ int64_t EndToken(int segment) const {
    const int64_t end = static_cast<int64_t>(EndChunk(segment)) * kChunk;
    return end < tokens ? end : tokens;
  }

  // Tokens of a chunk: 64, or fewer in the last.
  __host__ __device__ int Length(int chunk) const {
    const int64_t rest = tokens - static_cast<int64_t>(chunk) * kChunk;
    return rest < kChunk ? static_cast<int>(rest) : kChunk;
  }
};

cudaError_t PlanSegments(const LinearAttentionProblem& problem, Segments* segments);

// For a sweep that starts from the states at the segments' borders. One segment has none:
// `*segment_states` is null; more need them.
cudaError_t PlanSweep(const LinearAttentionProblem& problem, const float* states,
                      Segments* segments, const float** segment_states);

}  // namespace lasp::kernels::cuda
