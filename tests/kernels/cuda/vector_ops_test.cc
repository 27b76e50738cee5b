#include "kernels/cuda/vector_ops.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "kernels/cuda/bfloat16.h"
#include "tests/kernels/cuda/bf16_values.h"
#include "tests/support/device_array.h"
#include "tests/support/gpu.h"

namespace lasp::kernels::cuda {
namespace {

using lasp::testing::DeviceArray;

template <typename T>
class VectorOpsCuda : public lasp::testing::GpuTest {
 protected:
  static constexpr double kTolerance =
      sizeof(T) == 2 ? kBf16Tolerance : (sizeof(T) == 4 ? 1e-7 : 1e-15);
};

using Types = ::testing::Types<float, double, Bf16>;
TYPED_TEST_SUITE(VectorOpsCuda, Types);

TYPED_TEST(VectorOpsCuda, FillAndAxpyAtAnySizeAndAddress) {
  using T = TypeParam;
  for (const int64_t count : {int64_t{0}, int64_t{1}, int64_t{7}, int64_t{65}, int64_t{100001}}) {
    for (const int64_t offset : {0, 1}) {
      const std::vector<double> x = RandomBf16(count + offset, 1);
      const DeviceArray<T> x_d(x);
      DeviceArray<T> y(count + offset);
      ASSERT_EQ(Fill<T>(count, 2, y.data() + offset, nullptr), cudaSuccess);
      ASSERT_EQ(Axpy<T>(count, 3, x_d.data() + offset, y.data() + offset, nullptr), cudaSuccess);
      std::vector<double> expected(x.begin() + offset, x.end());
      for (double& value : expected) {
        value = 2 + 3 * value;
      }
      std::vector<double> actual = y.Values();
      actual.erase(actual.begin(), actual.begin() + offset);
      EXPECT_LE(RelativeRms(actual, expected), this->kTolerance) << count << " at " << offset;
    }
  }
}

TYPED_TEST(VectorOpsCuda, ConvertRoundsToNearest) {
  using T = TypeParam;
  const int64_t count = 1003;
  const std::vector<double> x = RandomValues<double>(count, 1);
  const DeviceArray<double> from(x);
  const DeviceArray<T> to(count);
  const DeviceArray<float> as_float(count);
  ASSERT_EQ((Convert<double, T>(count, from.data(), to.data(), nullptr)), cudaSuccess);
  ASSERT_EQ((Convert<T, float>(count, to.data(), as_float.data(), nullptr)), cudaSuccess);
  std::vector<double> expected;
  expected.reserve(x.size());
  for (const double value : x) {
    expected.push_back(static_cast<double>(static_cast<float>(static_cast<T>(value))));
  }
  EXPECT_EQ(as_float.Values(), expected);
}

}  // namespace
}  // namespace lasp::kernels::cuda
