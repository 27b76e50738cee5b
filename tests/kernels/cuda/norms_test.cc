// The norms at widths of every kernel: held by a warp, by a block, and the slow one for odd rows.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/cuda/gated_rms_norm.h"
#include "kernels/cuda/rms_norm.h"
#include "kernels/cuda/split_gated_rms_norm.h"
#include "kernels/reference/operations.h"
#include "tests/kernels/cuda/bf16_values.h"
#include "tests/support/device_array.h"
#include "tests/support/gpu.h"

namespace lasp::kernels::cuda {
namespace {

using lasp::testing::DeviceArray;

class NormsCuda : public lasp::testing::GpuTest {};

constexpr int64_t kWidths[] = {3, 8, 63, 100, 512, 768, 2047, 2048, 2056, 4096, 8192, 8200};
constexpr int64_t kRows = 5;

std::vector<double> InverseRms(int64_t width, const std::vector<double>& x) {
  std::vector<double> out;
  for (size_t start = 0; start < x.size(); start += static_cast<size_t>(width)) {
    double squares = 0;
    for (size_t c = 0; c < static_cast<size_t>(width); ++c) {
      squares += x[start + c] * x[start + c];
    }
    out.push_back(1 / std::sqrt(squares / static_cast<double>(width) + kRmsNormEpsilon));
  }
  return out;
}

TEST_F(NormsCuda, RmsNormForwardWithAndWithoutResidual) {
  for (const int64_t width : kWidths) {
    for (const bool residual : {false, true}) {
      const std::vector<double> x = RandomBf16(kRows * width, 1);
      const std::vector<double> addend = RandomBf16(kRows * width, 2);
      // What is normalised is the rounded sum.
      const std::vector<double> sum = residual ? RoundedToBf16(SumOf(x, addend)) : x;
      const DeviceArray<Bf16> x_d(x);
      const DeviceArray<Bf16> addend_d(addend);
      const DeviceArray<Bf16> sum_d(kRows * width);
      const DeviceArray<Bf16> output(kRows * width);
      const DeviceArray<float> inverse_rms(kRows);
      ASSERT_EQ(RmsNormForward({.rows = kRows,
                                .width = width,
                                .input = x_d.data(),
                                .addend = residual ? addend_d.data() : nullptr,
                                .sum = residual ? sum_d.data() : nullptr,
                                .output = output.data(),
                                .inverse_rms = inverse_rms.data()},
                               nullptr),
                cudaSuccess);
      EXPECT_LE(RelativeRms(output.Values(), reference::RmsNormForward(width, sum)), kBf16Tolerance)
          << width;
      EXPECT_LE(RelativeRms(inverse_rms.Values(), InverseRms(width, sum)), kFp32Tolerance) << width;
      if (residual) {
        EXPECT_EQ(sum_d.Values(), sum) << width;
      }
    }
  }
}

TEST_F(NormsCuda, RmsNormBackwardInPlaceWithAndWithoutResidual) {
  for (const int64_t width : kWidths) {
    for (const bool residual : {false, true}) {
      const std::vector<double> x = RandomBf16(kRows * width, 1);
      const std::vector<double> addend = RandomBf16(kRows * width, 2);
      const std::vector<double> d_y = RandomBf16(kRows * width, 3);
      std::vector<double> expected = reference::RmsNormBackward(width, x, d_y);
      if (residual) {
        expected = SumOf(expected, addend);
      }
      const DeviceArray<Bf16> x_d(x);
      const DeviceArray<Bf16> addend_d(addend);
      const DeviceArray<Bf16> d_x(d_y);
      const DeviceArray<float> inverse_rms(InverseRms(width, x));
      ASSERT_EQ(RmsNormBackward({.rows = kRows,
                                 .width = width,
                                 .input = x_d.data(),
                                 .inverse_rms = inverse_rms.data(),
                                 .output_gradient = d_x.data(),
                                 .addend = residual ? addend_d.data() : nullptr,
                                 .input_gradient = d_x.data()},
                                nullptr),
                cudaSuccess);
      EXPECT_LE(RelativeRms(d_x.Values(), expected), kBf16Tolerance) << width;
    }
  }
}

TEST_F(NormsCuda, RmsNormOfZerosIsZero) {
  const std::vector<double> zeros(2048);
  const DeviceArray<Bf16> x(zeros);
  const DeviceArray<Bf16> y(2048);
  ASSERT_EQ(
      RmsNormForward({.rows = 1, .width = 2048, .input = x.data(), .output = y.data()}, nullptr),
      cudaSuccess);
  EXPECT_EQ(y.Values(), zeros);
}

TEST_F(NormsCuda, GatedRmsNormOnPackedColumns) {
  for (const int64_t width : kWidths) {
    const int64_t stride = 4 * width;
    const std::vector<double> packed = RandomBf16(kRows * stride, 1);
    const std::vector<double> gate = ColumnsOf(packed, stride, 3 * width, width);
    const std::vector<double> o = RandomBf16(kRows * width, 2);
    const std::vector<double> d_y = RandomBf16(kRows * width, 3);
    const std::vector<double> normed = reference::RmsNormForward(width, o);
    const DeviceArray<Bf16> packed_d(packed);
    const DeviceArray<Bf16> o_d(o);
    const DeviceArray<Bf16> y(kRows * width);
    const DeviceArray<float> inverse_rms(kRows);
    ASSERT_EQ(GatedRmsNormForward({.rows = kRows,
                                   .width = width,
                                   .input = o_d.data(),
                                   .gate = packed_d.data() + 3 * width,
                                   .gate_stride = stride,
                                   .output = y.data(),
                                   .inverse_rms = inverse_rms.data()},
                                  nullptr),
              cudaSuccess);
    EXPECT_LE(RelativeRms(y.Values(), ProductOf(gate, normed)), kBf16Tolerance) << width;
    const DeviceArray<Bf16> d_packed(std::vector<double>(packed.size()));
    const DeviceArray<Bf16> d_o(d_y);  // in place
    ASSERT_EQ(GatedRmsNormBackward({.rows = kRows,
                                    .width = width,
                                    .input = o_d.data(),
                                    .gate = packed_d.data() + 3 * width,
                                    .gate_stride = stride,
                                    .inverse_rms = inverse_rms.data(),
                                    .output_gradient = d_o.data(),
                                    .input_gradient = d_o.data(),
                                    .gate_gradient = d_packed.data() + 3 * width,
                                    .gate_gradient_stride = stride},
                                   nullptr),
              cudaSuccess);
    const std::vector<double> d_packed_values = d_packed.Values();
    EXPECT_LE(
        RelativeRms(ColumnsOf(d_packed_values, stride, 3 * width, width), ProductOf(d_y, normed)),
        kBf16Tolerance)
        << width;
    EXPECT_EQ(ColumnsOf(d_packed_values, stride, 0, 3 * width),
              std::vector<double>(static_cast<size_t>(kRows * 3 * width)));
    EXPECT_LE(RelativeRms(d_o.Values(), reference::RmsNormBackward(width, o, ProductOf(d_y, gate))),
              kBf16Tolerance)
        << width;
  }
}

// Two parts of a row: even ones, and odd ones that 16-byte accesses do not reach.
TEST_F(NormsCuda, GatedRmsNormInPartsIsThatOfTheWhole) {
  for (const int64_t width : {3, 8, 100, 512, 2056}) {
    const int64_t whole_width = 2 * width;
    const int64_t stride = 4 * width;
    const std::vector<double> o = RandomBf16(kRows * whole_width, 2);
    const std::vector<double> d_y = RandomBf16(kRows * whole_width, 3);
    const std::vector<double> gate = RandomBf16(kRows * whole_width, 4);
    const std::vector<double> normed = reference::RmsNormForward(whole_width, o);
    const std::vector<double> d_o =
        reference::RmsNormBackward(whole_width, o, ProductOf(d_y, gate));
    std::vector<double> squares(kRows);
    std::vector<double> products(kRows);
    for (int64_t i = 0; i < kRows * whole_width; ++i) {
      const auto at = static_cast<size_t>(i);
      const auto row = static_cast<size_t>(i / whole_width);
      squares[row] += o[at] * o[at];
      products[row] += o[at] * d_y[at] * gate[at];
    }
    std::vector<double> summed_squares(kRows);
    std::vector<double> summed_products(kRows);
    for (const int64_t first : {int64_t{0}, width}) {
      std::vector<double> packed(static_cast<size_t>(kRows * stride));
      for (int64_t row = 0; row < kRows; ++row) {
        for (int64_t c = 0; c < width; ++c) {
          packed[static_cast<size_t>(row * stride + 3 * width + c)] =
              gate[static_cast<size_t>(row * whole_width + first + c)];
        }
      }
      const DeviceArray<Bf16> packed_d(packed);
      const DeviceArray<Bf16> o_d(ColumnsOf(o, whole_width, first, width));
      const DeviceArray<Bf16> gradient(ColumnsOf(d_y, whole_width, first, width));
      const DeviceArray<float> own_squares(kRows);
      const DeviceArray<float> own_products(kRows);
      ASSERT_EQ(
          SplitNormSums(
              {.rows = kRows, .width = width, .input = o_d.data(), .sums = own_squares.data()},
              nullptr),
          cudaSuccess);
      ASSERT_EQ(SplitNormSums({.rows = kRows,
                               .width = width,
                               .input = o_d.data(),
                               .output_gradient = gradient.data(),
                               .gate = packed_d.data() + 3 * width,
                               .gate_stride = stride,
                               .sums = own_products.data()},
                              nullptr),
                cudaSuccess);
      summed_squares = SumOf(summed_squares, own_squares.Values());
      summed_products = SumOf(summed_products, own_products.Values());
      const DeviceArray<float> inverse_rms(squares);
      const DeviceArray<float> sums(products);
      const DeviceArray<Bf16> y(kRows * width);
      ASSERT_EQ(SplitGatedRmsNormForward({.rows = kRows,
                                          .width = width,
                                          .whole_width = whole_width,
                                          .input = o_d.data(),
                                          .gate = packed_d.data() + 3 * width,
                                          .gate_stride = stride,
                                          .output = y.data(),
                                          .inverse_rms = inverse_rms.data()},
                                         nullptr),
                cudaSuccess);
      EXPECT_LE(
          RelativeRms(y.Values(), ColumnsOf(ProductOf(gate, normed), whole_width, first, width)),
          kBf16Tolerance)
          << width;
      const DeviceArray<Bf16> d_packed(std::vector<double>(packed.size()));
      ASSERT_EQ(SplitGatedRmsNormBackward({.rows = kRows,
                                           .width = width,
                                           .whole_width = whole_width,
                                           .input = o_d.data(),
                                           .gate = packed_d.data() + 3 * width,
                                           .gate_stride = stride,
                                           .inverse_rms = inverse_rms.data(),
                                           .sums = sums.data(),
                                           .output_gradient = gradient.data(),
                                           .input_gradient = gradient.data(),  // in place
                                           .gate_gradient = d_packed.data() + 3 * width,
                                           .gate_gradient_stride = stride},
                                          nullptr),
                cudaSuccess);
      EXPECT_LE(RelativeRms(gradient.Values(), ColumnsOf(d_o, whole_width, first, width)),
                kBf16Tolerance)
          << width;
      EXPECT_LE(RelativeRms(ColumnsOf(d_packed.Values(), stride, 3 * width, width),
                            ColumnsOf(ProductOf(d_y, normed), whole_width, first, width)),
                1.1 * kBf16Tolerance)
          << width;
    }
    EXPECT_LE(RelativeRms(summed_squares, squares), kFp32Tolerance) << width;
    // Its terms nearly cancel.
    EXPECT_LE(RelativeRms(summed_products, products), 20 * kFp32Tolerance) << width;
  }
}

}  // namespace
}  // namespace lasp::kernels::cuda
