// Normal random numbers that depend on the seed alone, and the measure all kernel tests share.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

namespace lasp::kernels {

// Values that T represents exactly, so that an fp64 oracle starts from the same inputs.
template <typename T>
std::vector<double> RandomValues(int64_t count, uint32_t seed, double deviation = 1.0) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal(0.0, deviation);
  std::vector<double> values(static_cast<size_t>(count));
  for (double& value : values) {
    value = static_cast<double>(static_cast<T>(normal(generator)));
  }
  return values;
}

template <typename T>
std::vector<T> Converted(const std::vector<double>& values) {
  std::vector<T> out;
  out.reserve(values.size());
  for (const double value : values) {
    out.push_back(static_cast<T>(value));
  }
  return out;
}

// RMS(actual - expected) / RMS(expected); infinite where a value is not finite or a size differs.
template <typename T>
double RelativeRms(const std::vector<T>& actual, const std::vector<double>& expected) {
  if (actual.size() != expected.size()) {
    return std::numeric_limits<double>::infinity();
  }
  double error = 0;
  double norm = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double difference = static_cast<double>(actual[i]) - expected[i];
    if (!std::isfinite(difference)) {
      return std::numeric_limits<double>::infinity();
    }
    error += difference * difference;
    norm += expected[i] * expected[i];
  }
  return error == 0 ? 0 : std::sqrt(error / norm);
}

// What a result of type T may be off by. In fp64 the oracle of theta's gradient at position 2^26 is
// itself good to 1e-12 only.
template <typename T>
constexpr double Tolerance() {
  return std::numeric_limits<T>::digits > 30 ? 1e-11 : 1e-5;
}

}  // namespace lasp::kernels
