// Several bf16 values, moved between memory and registers by one access of up to 16 bytes and
// computed on as fp32.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/bfloat16.h"

namespace lasp::kernels::cuda {

// What a 16-byte access moves.
inline constexpr int kBf16Pack = 8;

// N is kBf16Pack, or 1 where addresses allow no more.
template <int N>
struct Bf16Pack;

template <>
struct alignas(16) Bf16Pack<kBf16Pack> {
  // Two values a word, the lower half first: as sixteen-bit variables they would take a register
  // each.
  uint32_t words[kBf16Pack / 2];

  __device__ __forceinline__ static Bf16Pack Load(const Bf16* from) {
    return *reinterpret_cast<const Bf16Pack*>(from);
  }

  // Each value the one with these bits.
  __device__ __forceinline__ static Bf16Pack Of(uint16_t bits) {
    const uint32_t word = bits * 0x10001U;
    return {{word, word, word, word}};
  }

  __device__ __forceinline__ static Bf16Pack Rounded(const float (&from)[kBf16Pack]) {
    Bf16Pack pack;
#pragma unroll
    for (int i = 0; i < kBf16Pack / 2; ++i) {
      const __nv_bfloat162 pair = __floats2bfloat162_rn(from[2 * i], from[2 * i + 1]);
      pack.words[i] = *reinterpret_cast<const uint32_t*>(&pair);
    }
    return pack;
  }

  __device__ __forceinline__ void Store(Bf16* to) const {
    *reinterpret_cast<Bf16Pack*>(to) = *this;
  }

  // From here on the compiler knows nothing of the values: it cannot keep their conversions to fp32
  // in registers, which are twice as many, and converts again where they are used.
  __device__ __forceinline__ void Hold() {
    asm volatile("" : "+r"(words[0]), "+r"(words[1]), "+r"(words[2]), "+r"(words[3]));
  }

  __device__ __forceinline__ float operator[](int i) const {
    return __uint_as_float(i % 2 == 0 ? words[i / 2] << 16 : words[i / 2] & 0xffff0000U);
  }
};

template <>
struct Bf16Pack<1> {
  Bf16 value;

  __device__ __forceinline__ static Bf16Pack Load(const Bf16* from) { return {*from}; }

  __device__ __forceinline__ static Bf16Pack Rounded(const float (&from)[1]) {
    return {__float2bfloat16_rn(from[0])};
  }

  __device__ __forceinline__ void Store(Bf16* to) const { *to = value; }

  __device__ __forceinline__ float operator[](int /*i*/) const { return __bfloat162float(value); }
};

// Whether 16-byte accesses may start at `pointer` and at every row `stride` elements on. A null
// pointer is as good as aligned.
template <typename T>
inline bool Aligned16(const T* pointer, int64_t stride) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0 &&
         stride * static_cast<int64_t>(sizeof(T)) % 16 == 0;
}

}  // namespace lasp::kernels::cuda
