// silu and the gated product on column ranges of packed rows.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/cuda/glu.h"
#include "kernels/cuda/silu.h"
#include "kernels/reference/operations.h"
#include "tests/kernels/cuda/bf16_values.h"
#include "tests/support/device_array.h"
#include "tests/support/gpu.h"

namespace lasp::kernels::cuda {
namespace {

using lasp::testing::DeviceArray;

class ElementwiseCuda : public lasp::testing::GpuTest {};

constexpr int64_t kWidths[] = {1, 3, 8, 63, 64, 1000, 4096, 5632};
constexpr int64_t kRows = 67;

TEST_F(ElementwiseCuda, SiluOnAColumnRange) {
  for (const int64_t width : kWidths) {
    const int64_t stride = 2 * width;
    const std::vector<double> packed = RandomBf16(kRows * stride, 1, 3.0);
    const std::vector<double> z = ColumnsOf(packed, stride, width, width);
    const std::vector<double> d_y = RandomBf16(kRows * width, 2);
    std::vector<double> expected;
    expected.reserve(z.size());
    std::vector<double> expected_gradient;
    for (size_t i = 0; i < z.size(); ++i) {
      expected.push_back(reference::Silu(z[i]));
      expected_gradient.push_back(d_y[i] * reference::SiluGradient(z[i]));
    }
    const DeviceArray<Bf16> packed_d(packed);
    const DeviceArray<Bf16> d_y_d(d_y);
    const DeviceArray<Bf16> y(kRows * width);
    const DeviceArray<Bf16> d_packed(std::vector<double>(packed.size()));
    ASSERT_EQ(
        SiluForward({kRows, width, packed_d.data() + width, stride, y.data(), width}, nullptr),
        cudaSuccess);
    ASSERT_EQ(SiluBackward({kRows, width, packed_d.data() + width, stride, d_y_d.data(), width,
                            d_packed.data() + width, stride},
                           nullptr),
              cudaSuccess);
    EXPECT_LE(RelativeRms(y.Values(), expected), kBf16Tolerance) << width;
    const std::vector<double> d_packed_values = d_packed.Values();
    EXPECT_LE(RelativeRms(ColumnsOf(d_packed_values, stride, width, width), expected_gradient),
              kBf16Tolerance)
        << width;
    EXPECT_EQ(ColumnsOf(d_packed_values, stride, 0, width),
              std::vector<double>(static_cast<size_t>(kRows * width)));
  }
}

TEST_F(ElementwiseCuda, SiluInPlaceAndAtTheEndsOfTheRange) {
  const double infinity = std::numeric_limits<double>::infinity();
  const std::vector<double> z = RoundedToBf16({-1000, -90, -87, -80, 0, 80, 90, 1000, infinity});
  const DeviceArray<Bf16> x(z);
  ASSERT_EQ(SiluForward({1, 9, x.data(), 9, x.data(), 9}, nullptr), cudaSuccess);
  const std::vector<double> y = x.Values();
  for (size_t i = 0; i < z.size(); ++i) {
    const double expected = reference::Silu(z[i]);
    if (std::isinf(expected)) {
      EXPECT_EQ(y[i], infinity);
    } else {
      EXPECT_NEAR(y[i], expected, 4e-3 * std::fabs(expected) + 1e-30) << z[i];
    }
  }
}

TEST_F(ElementwiseCuda, GluInPlaceWithItsProductOnceMore) {
  for (const int64_t width : kWidths) {
    const int64_t stride = 2 * width;
    const std::vector<double> packed = RandomBf16(kRows * stride, 1);
    const std::vector<double> a = ColumnsOf(packed, stride, 0, width);
    const std::vector<double> b = ColumnsOf(packed, stride, width, width);
    const std::vector<double> d_y = RandomBf16(kRows * width, 2);
    for (const bool again : {false, true}) {
      const DeviceArray<Bf16> packed_d(packed);
      const DeviceArray<Bf16> d_y_d(d_y);
      const DeviceArray<Bf16> y(kRows * width);
      Bf16* const first = packed_d.data();
      Bf16* const second = first + width;
      ASSERT_EQ(GluForward({kRows, width, first, stride, second, stride, y.data()}, nullptr),
                cudaSuccess);
      EXPECT_EQ(y.Values(), RoundedToBf16(ProductOf(a, b)));
      ASSERT_EQ(GluBackward({kRows, width, first, stride, second, stride, d_y_d.data(), first,
                             stride, second, stride, again ? d_y_d.data() : nullptr},
                            nullptr),
                cudaSuccess);
      const std::vector<double> gradient = packed_d.Values();
      EXPECT_EQ(ColumnsOf(gradient, stride, 0, width), RoundedToBf16(ProductOf(d_y, b)));
      EXPECT_EQ(ColumnsOf(gradient, stride, width, width), RoundedToBf16(ProductOf(d_y, a)));
      EXPECT_EQ(d_y_d.Values(), again ? RoundedToBf16(ProductOf(a, b)) : d_y);
    }
  }
}

}  // namespace
}  // namespace lasp::kernels::cuda
