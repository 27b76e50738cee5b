// Inputs that bf16 represents exactly, and what a result may be off by.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cuda/bfloat16.h"
#include "tests/kernels/random_values.h"

namespace lasp::kernels {

inline std::vector<double> RoundedToBf16(std::vector<double> values) {
  for (double& value : values) {
    value = static_cast<double>(static_cast<float>(cuda::Bf16(value)));
  }
  return values;
}

// Normal random numbers rounded to bf16.
inline std::vector<double> RandomBf16(int64_t count, uint32_t seed, double deviation = 1.0) {
  return RoundedToBf16(RandomValues<double>(count, seed, deviation));
}

// Relative RMS: rounding a result to bf16 alone makes about 1.7e-3.
inline constexpr double kBf16Tolerance = 2.5e-3;
inline constexpr double kFp32Tolerance = 2e-6;

}  // namespace lasp::kernels
