// Where documents start, as the kernels see it: a word a chunk, a bit a token.
#pragma once

#include <cstdint>

#include "kernels/cuda/linear_attention_segments.h"

namespace lasp::kernels::cuda {

inline __device__ uint64_t MarksOf(const Segments& segments, int batch, int chunk) {
  return segments.marks == nullptr
             ? 0
             : __ldg(segments.marks + static_cast<int64_t>(batch) * segments.chunks + chunk);
}

// A chunk's tokens before the first mark see the state before the chunk; 64 without marks.
inline __device__ int FirstMark(uint64_t marks) {
  return marks == 0 ? kChunk : __ffsll(static_cast<long long>(marks)) - 1;
}

// A chunk's tokens from the last mark on are seen by the state after it; 0 without marks.
inline __device__ int LastMark(uint64_t marks) {
  return marks == 0 ? 0 : kChunk - 1 - __clzll(static_cast<long long>(marks));
}

// Whether a document starts in chunks [begin, end). By all threads of the block.
inline __device__ bool DocumentStartsIn(const Segments& segments, int batch, int begin, int end) {
  if (segments.marks == nullptr) {
    return false;
  }
  bool starts = false;
  for (int chunk = begin + static_cast<int>(threadIdx.x); chunk < end;
       chunk += static_cast<int>(blockDim.x)) {
    starts = starts || MarksOf(segments, batch, chunk) != 0;
  }
  return __syncthreads_or(static_cast<int>(starts)) != 0;
}

}  // namespace lasp::kernels::cuda
