// An exponential that the compiler can vectorise: libm's scalar call would dominate softmax and
// silu.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/cpu/simd.h"

namespace lasp::kernels::cpu {

// e^x to about 1 ulp for x in [-87, 88]; smaller x give 0 or nearly so, larger ones about 1.6e38,
// and NaN stays NaN. x = n ln 2 + r with |r| <= ln 2 / 2; ln 2 in two parts keeps r exact; e^r by
// its Taylor sum to r^7 / 7!, whose rest is below 2^-26.
LASP_ALWAYS_INLINE inline float Exp(float x) {
  constexpr float kLog2E = 1.44269504F;
  constexpr float kLn2High = 0.693359375F;
  constexpr float kLn2Low = -2.12194440e-4F;
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding it rounds to an integer
  const float clamped = x < -87.0F ? -87.0F : (x > 88.0F ? 88.0F : x);
  const float shifted = clamped * kLog2E + kRound;
  const float n = shifted - kRound;
  const float r = (clamped - n * kLn2High) - n * kLn2Low;
  float p = 1.0F / 5040.0F;
  p = p * r + 1.0F / 720.0F;
  p = p * r + 1.0F / 120.0F;
  p = p * r + 1.0F / 24.0F;
  p = p * r + 1.0F / 6.0F;
  p = p * r + 0.5F;
  p = p * r + 1.0F;
  p = p * r + 1.0F;
  const uint32_t bits = std::bit_cast<uint32_t>(shifted) << 23U;  // n into the exponent field
  const float scaled = std::bit_cast<float>(std::bit_cast<uint32_t>(p) + bits);
  return x < -87.0F ? 0.0F : (x != x ? x : scaled);  // NOLINT(misc-redundant-expression): NaN
}

LASP_ALWAYS_INLINE inline double Exp(double x) { return std::exp(x); }

}  // namespace lasp::kernels::cpu
