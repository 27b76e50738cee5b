// Sums over a row, in the vector order of the CPU.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cpu/simd.h"

namespace lasp::kernels::cpu {

template <typename T>
LASP_ALWAYS_INLINE inline T Dot(int64_t width, const T* a, const T* b) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < width; ++c) {
    sum += a[c] * b[c];
  }
  return sum;
}

// 1 / sqrt(mean(x^2) + epsilon)
template <typename T>
LASP_ALWAYS_INLINE inline T InverseRms(int64_t width, double epsilon, const T* x) {
  const double mean = static_cast<double>(Dot(width, x, x)) / static_cast<double>(width);
  return static_cast<T>(1.0 / std::sqrt(mean + epsilon));
}

}  // namespace lasp::kernels::cpu
