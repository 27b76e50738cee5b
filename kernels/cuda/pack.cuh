// Several values of one type, moved between memory and registers by accesses of up to 16 bytes and
// computed on as fp32.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/bfloat16.h"

namespace lasp::kernels::cuda {

// How many values of T a 16-byte access moves.
template <typename T>
inline constexpr int kPack = 16 / static_cast<int>(sizeof(T));

// N * sizeof(T) is a power of two up to 16.
template <typename T, int N = kPack<T>>
struct alignas(sizeof(T) * N) Pack {
  T values[N];

  __device__ __forceinline__ static Pack Load(const T* from) {
    return *reinterpret_cast<const Pack*>(from);
  }

  __device__ __forceinline__ void Store(T* to) const { *reinterpret_cast<Pack*>(to) = *this; }

  // For what is not read again soon.
  __device__ __forceinline__ void StoreStreaming(T* to) const {
    if constexpr (sizeof(Pack) == 16) {
      __stcs(reinterpret_cast<uint4*>(to), *reinterpret_cast<const uint4*>(values));
    } else {
      Store(to);
    }
  }

  __device__ __forceinline__ float Get(int i) const { return static_cast<float>(values[i]); }

  __device__ __forceinline__ void Set(int i, float value) { values[i] = static_cast<T>(value); }

  __device__ __forceinline__ static Pack Zero() {
    Pack pack;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      pack.values[i] = static_cast<T>(0.0F);
    }
    return pack;
  }
};

// Whether 16-byte accesses to rows of T may start at `pointer` and step by `stride` elements.
template <typename T>
inline bool Aligned(const T* pointer, int64_t stride) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0 && stride % kPack<T> == 0;
}

}  // namespace lasp::kernels::cuda
