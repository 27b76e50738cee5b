// Sums over a warp or a block in a fixed order.
#pragma once

#include <cuda_runtime.h>

namespace lasp::kernels::cuda {

inline constexpr unsigned kWholeWarp = 0xffffffffU;

// The sum on every lane.
template <typename T>
__device__ __forceinline__ T WarpSum(T value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kWholeWarp, value, distance);
  }
  return value;
}

// The sum on every thread of a block of kThreads.
template <int kThreads, typename T>
__device__ __forceinline__ T BlockSum(T value) {
  __shared__ T sums[kThreads / 32];
  value = WarpSum(value);
  __syncthreads();  // the sums of a call before have been read
  if (threadIdx.x % 32 == 0) {
    sums[threadIdx.x / 32] = value;
  }
  __syncthreads();
  T total = sums[0];
#pragma unroll
  for (int warp = 1; warp < kThreads / 32; ++warp) {
    total += sums[warp];
  }
  return total;
}

}  // namespace lasp::kernels::cuda
