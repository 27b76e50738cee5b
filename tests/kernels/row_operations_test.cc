// What is done to each row or element of activations, against its fp64 oracle, at sizes that
// divide nothing.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/gated_rms_norm.h"
#include "kernels/glu.h"
#include "kernels/reference/operations.h"
#include "kernels/rms_norm.h"
#include "kernels/silu.h"
#include "tests/kernels/operation_test.h"
#include "tests/kernels/random_values.h"

namespace lasp::kernels {
namespace {

template <typename T>
using RowOperations = OperationTest<T>;
TYPED_TEST_SUITE(RowOperations, OperationTypes);

// Rows of `width` taken out of rows of `stride`, starting at column `first`.
std::vector<double> Columns(const std::vector<double>& packed, int64_t stride, int64_t first,
                            int64_t width) {
  std::vector<double> out;
  for (size_t start = 0; start < packed.size(); start += static_cast<size_t>(stride)) {
    const auto row = packed.begin() + static_cast<std::ptrdiff_t>(start) + first;
    out.insert(out.end(), row, row + width);
  }
  return out;
}

std::vector<double> Times(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> out(a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    out[i] = a[i] * b[i];
  }
  return out;
}

TYPED_TEST(RowOperations, RmsNormWithAndWithoutResidual) {
  using T = TypeParam;
  const int64_t rows = 5;
  for (const int64_t width : kSizes) {
    const std::vector<double> x = RandomValues<T>(rows * width, 1);
    const std::vector<double> addend = RandomValues<T>(rows * width, 2);
    const std::vector<double> d_y = RandomValues<T>(rows * width, 3);
    for (const bool residual : {false, true}) {
      std::vector<double> sum = x;
      for (size_t i = 0; i < sum.size(); ++i) {
        sum[i] += residual ? addend[i] : 0.0;
      }
      const std::vector<T> x_t = Converted<T>(x);
      const std::vector<T> addend_t = Converted<T>(addend);
      const std::vector<T> d_y_t = Converted<T>(d_y);
      std::vector<T> sum_t = x_t;
      std::vector<T> y(x.size());
      std::vector<T> inverse_rms(static_cast<size_t>(rows));
      cpu::RmsNormForward<T>({.rows = rows,
                              .width = width,
                              .input = x_t.data(),
                              .addend = residual ? addend_t.data() : nullptr,
                              .sum = residual ? sum_t.data() : nullptr,
                              .output = y.data(),
                              .inverse_rms = inverse_rms.data()});
      EXPECT_LE(RelativeRms(sum_t, sum), this->kTolerance);
      EXPECT_LE(RelativeRms(y, reference::RmsNormForward(width, sum)), this->kTolerance);
      std::vector<double> expected = reference::RmsNormBackward(width, sum, d_y);
      for (size_t i = 0; i < expected.size(); ++i) {
        expected[i] += residual ? addend[i] : 0.0;
      }
      std::vector<T> d_x = d_y_t;  // in place
      cpu::RmsNormBackward<T>({.rows = rows,
                               .width = width,
                               .input = sum_t.data(),
                               .inverse_rms = inverse_rms.data(),
                               .output_gradient = d_x.data(),
                               .addend = residual ? addend_t.data() : nullptr,
                               .input_gradient = d_x.data()});
      // One column: what is left of the gradient is epsilon's share, a difference of near equals.
      if (width > 1) {
        EXPECT_LE(RelativeRms(d_x, expected), this->kTolerance) << width;
      }
    }
  }
}

TYPED_TEST(RowOperations, RmsNormOfZerosIsZero) {
  using T = TypeParam;
  std::vector<T> x(7);
  std::vector<T> y(7, T{1});
  cpu::RmsNormForward<T>({.rows = 1, .width = 7, .input = x.data(), .output = y.data()});
  EXPECT_EQ(y, x);
}

TYPED_TEST(RowOperations, GatedRmsNormOnPackedColumns) {
  using T = TypeParam;
  const int64_t rows = 5;
  for (const int64_t width : kSizes) {
    const int64_t stride = 4 * width;
    const std::vector<double> packed = RandomValues<T>(rows * stride, 1);
    const std::vector<double> gate = Columns(packed, stride, 3 * width, width);
    const std::vector<double> o = RandomValues<T>(rows * width, 2);
    const std::vector<double> d_y = RandomValues<T>(rows * width, 3);
    const std::vector<double> normed = reference::RmsNormForward(width, o);
    const std::vector<T> packed_t = Converted<T>(packed);
    const std::vector<T> o_t = Converted<T>(o);
    std::vector<T> y(o.size());
    std::vector<T> inverse_rms(static_cast<size_t>(rows));
    cpu::GatedRmsNormForward<T>({.rows = rows,
                                 .width = width,
                                 .input = o_t.data(),
                                 .gate = packed_t.data() + 3 * width,
                                 .gate_stride = stride,
                                 .output = y.data(),
                                 .inverse_rms = inverse_rms.data()});
    EXPECT_LE(RelativeRms(y, Times(gate, normed)), this->kTolerance);
    std::vector<T> d_packed(packed.size());
    std::vector<T> d_o = Converted<T>(d_y);  // in place
    cpu::GatedRmsNormBackward<T>({.rows = rows,
                                  .width = width,
                                  .input = o_t.data(),
                                  .gate = packed_t.data() + 3 * width,
                                  .gate_stride = stride,
                                  .inverse_rms = inverse_rms.data(),
                                  .output_gradient = d_o.data(),
                                  .input_gradient = d_o.data(),
                                  .gate_gradient = d_packed.data() + 3 * width,
                                  .gate_gradient_stride = stride});
    const std::vector<double> d_packed_d(d_packed.begin(), d_packed.end());
    EXPECT_LE(RelativeRms(Columns(d_packed_d, stride, 3 * width, width), Times(d_y, normed)),
              this->kTolerance);
    EXPECT_EQ(Columns(d_packed_d, stride, 0, 3 * width),
              std::vector<double>(static_cast<size_t>(rows * 3 * width)));
    if (width > 1) {
      EXPECT_LE(RelativeRms(d_o, reference::RmsNormBackward(width, o, Times(d_y, gate))),
                this->kTolerance);
    }
  }
}

TYPED_TEST(RowOperations, SiluOnAColumnRange) {
  using T = TypeParam;
  const int64_t rows = 3;
  for (const int64_t width : kSizes) {
    const int64_t stride = 2 * width;
    const std::vector<double> packed = RandomValues<T>(rows * stride, 1, 3.0);
    const std::vector<double> z = Columns(packed, stride, width, width);
    const std::vector<double> d_y = RandomValues<T>(rows * width, 2);
    std::vector<double> expected;
    expected.reserve(z.size());
    std::vector<double> expected_gradient;
    for (size_t i = 0; i < z.size(); ++i) {
      expected.push_back(reference::Silu(z[i]));
      expected_gradient.push_back(d_y[i] * reference::SiluGradient(z[i]));
    }
    const std::vector<T> packed_t = Converted<T>(packed);
    const std::vector<T> d_y_t = Converted<T>(d_y);
    std::vector<T> y(z.size());
    cpu::SiluForward<T>({rows, width, packed_t.data() + width, stride, y.data(), width});
    EXPECT_LE(RelativeRms(y, expected), this->kTolerance);
    std::vector<T> d_packed(packed.size());
    cpu::SiluBackward<T>({rows, width, packed_t.data() + width, stride, d_y_t.data(), width,
                          d_packed.data() + width, stride});
    const std::vector<double> d_packed_d(d_packed.begin(), d_packed.end());
    EXPECT_LE(RelativeRms(Columns(d_packed_d, stride, width, width), expected_gradient),
              this->kTolerance);
  }
}

TYPED_TEST(RowOperations, SiluAtTheEndsOfTheRange) {
  using T = TypeParam;
  const T infinity = std::numeric_limits<T>::infinity();
  const std::vector<T> z = {T{-1000}, T{-90}, T{-87},  T{-80},  T{0},
                            T{80},    T{90},  T{1000}, infinity};
  std::vector<T> y(z.size());
  cpu::SiluForward<T>({1, 9, z.data(), 9, y.data(), 9});
  for (size_t i = 0; i < z.size(); ++i) {
    const double expected = reference::Silu(static_cast<double>(z[i]));
    if (std::isinf(expected)) {
      EXPECT_EQ(y[i], infinity);
    } else {
      EXPECT_NEAR(static_cast<double>(y[i]), expected, 1e-6 * std::fabs(expected) + 1e-30);
    }
  }
  const T nan = std::numeric_limits<T>::quiet_NaN();
  T result = 0;
  cpu::SiluForward<T>({1, 1, &nan, 1, &result, 1});
  EXPECT_TRUE(std::isnan(result));
}

TYPED_TEST(RowOperations, GluOnHalvesAndInPlace) {
  using T = TypeParam;
  const int64_t rows = 4;
  for (const int64_t width : kSizes) {
    const int64_t stride = 2 * width;
    const std::vector<double> packed = RandomValues<T>(rows * stride, 1);
    const std::vector<double> a = Columns(packed, stride, 0, width);
    const std::vector<double> b = Columns(packed, stride, width, width);
    const std::vector<double> d_y = RandomValues<T>(rows * width, 2);
    std::vector<T> packed_t = Converted<T>(packed);
    std::vector<T> d_y_t = Converted<T>(d_y);
    std::vector<T> y(a.size());
    T* const first = packed_t.data();
    T* const second = first + width;
    cpu::GluForward<T>({rows, width, first, stride, second, stride, y.data()});
    EXPECT_LE(RelativeRms(y, Times(a, b)), this->kTolerance);
    cpu::GluBackward<T>({rows, width, first, stride, second, stride, d_y_t.data(), first, stride,
                         second, stride, d_y_t.data()});
    EXPECT_EQ(d_y_t, y);  // the product in the place of its gradient
    const std::vector<double> gradient(packed_t.begin(), packed_t.end());
    EXPECT_LE(RelativeRms(Columns(gradient, stride, 0, width), Times(d_y, b)), this->kTolerance);
    EXPECT_LE(RelativeRms(Columns(gradient, stride, width, width), Times(d_y, a)),
              this->kTolerance);
  }
}

}  // namespace
}  // namespace lasp::kernels
