// The operations' tests run in both types.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <vector>

namespace lasp::kernels {

inline constexpr int64_t kSizes[] = {1, 3, 63, 64, 65, 1000};

template <typename T>
class OperationTest : public ::testing::Test {
 protected:
  static constexpr double kTolerance = std::numeric_limits<T>::digits > 30 ? 1e-14 : 1e-6;
};

using OperationTypes = ::testing::Types<float, double>;

}  // namespace lasp::kernels
