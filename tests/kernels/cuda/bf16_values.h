// Inputs that bf16 represents exactly, what a result may be off by, and columns of packed rows.
#pragma once

#include <cstddef>
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

// Rows of `width` taken out of rows of `stride`, starting at column `first`.
inline std::vector<double> ColumnsOf(const std::vector<double>& packed, int64_t stride,
                                     int64_t first, int64_t width) {
  std::vector<double> out;
  for (size_t start = 0; start < packed.size(); start += static_cast<size_t>(stride)) {
    const auto row = packed.begin() + static_cast<std::ptrdiff_t>(start) + first;
    out.insert(out.end(), row, row + width);
  }
  return out;
}

inline std::vector<double> ProductOf(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> out(a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    out[i] = a[i] * b[i];
  }
  return out;
}

inline std::vector<double> SumOf(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> out(a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    out[i] = a[i] + b[i];
  }
  return out;
}

}  // namespace lasp::kernels
