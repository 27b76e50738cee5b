// How much of a segment a state at its border can see.
#pragma once

#include <cstdint>

#include "kernels/cuda/linear_attention_segments.h"
#include "kernels/cuda/linear_attention_tiles.cuh"

namespace lasp::kernels::cuda {

// How many chunks of a segment, counted from the border that the state is for, may count: all, up
// to the first with a document's start, as far as anything is seen. By all threads.
template <bool kGradient>
__device__ int ChunksThatCount(const Segments& segments, int segment, int batch, double slope,
                               int* shared) {
  const int first = segments.FirstChunk(segment);
  const int end = segments.EndChunk(segment);
  if (threadIdx.x == 0) {
    int count = end - first;
    if (slope > 0) {
      const double farthest = kFarthestExponent / slope / kChunk + 2;
      count = farthest < count ? static_cast<int>(farthest) : count;
    }
    *shared = count;
  }
  __syncthreads();
  if (segments.marks != nullptr) {
    for (int i = static_cast<int>(threadIdx.x); i < end - first; i += kBlockThreads) {
      if (MarksOf(segments, batch, kGradient ? first + i : end - 1 - i) != 0) {
        atomicMin(shared, i + 1);
        break;
      }
    }
    __syncthreads();
  }
  return *shared;
}

}  // namespace lasp::kernels::cuda
