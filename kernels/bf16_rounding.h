// bf16 as its bits, where it is no type of the compiler's; and rounding up or down at random, so
// that what is added again and again below half a step is not lost: the expectation is the number
// itself. The bits come from the number of the update and of the element, not from a stream: every
// device and every shape of ranks rounds alike, and a run that goes on from a checkpoint as one
// that never stopped.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define LASP_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define LASP_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace lasp::kernels {

// 32 bits for one element of one update: 16 for each of two numbers. The finaliser is that of
// "lowbias32" (Wellons, Prospecting for hash functions, 2018).
LASP_HOST_DEVICE uint32_t RoundingBits(uint32_t update, int64_t element) {
  const auto wide = static_cast<uint64_t>(element);
  uint32_t x = static_cast<uint32_t>(wide) ^ (static_cast<uint32_t>(wide >> 32) * 0x9e3779b9U) ^
               (update * 0x85ebca6bU);
  x ^= x >> 16;
  x *= 0x7feb352dU;
  x ^= x >> 15;
  x *= 0x846ca68bU;
  x ^= x >> 16;
  return x;
}

// The bits of the bf16 below or above a finite `x`, by the lower 16 of `bits`.
LASP_HOST_DEVICE uint16_t RoundedAtRandom(float x, uint32_t bits) {
  uint32_t word = 0;
  memcpy(&word, &x, sizeof word);
  return static_cast<uint16_t>((word + (bits & 0xffffU)) >> 16);
}

// The nearest, as a device converts; not for NaN.
LASP_HOST_DEVICE uint16_t NearestBf16Bits(float x) {
  uint32_t word = 0;
  memcpy(&word, &x, sizeof word);
  return static_cast<uint16_t>((word + 0x7fffU + ((word >> 16) & 1U)) >> 16);
}

LASP_HOST_DEVICE float FromBf16Bits(uint16_t bits) {
  const uint32_t word = static_cast<uint32_t>(bits) << 16;
  float x = 0;
  memcpy(&x, &word, sizeof x);
  return x;
}

}  // namespace lasp::kernels
