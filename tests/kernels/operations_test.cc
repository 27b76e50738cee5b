// The element-wise and row-wise operations against their fp64 oracles, at sizes that divide
// nothing.
#include "kernels/reference/operations.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/adamw.h"
#include "kernels/cross_entropy.h"
#include "kernels/embedding.h"
#include "kernels/gated_rms_norm.h"
#include "kernels/gemm.h"
#include "kernels/global_norm.h"
#include "kernels/glu.h"
#include "kernels/rms_norm.h"
#include "kernels/silu.h"
#include "kernels/vector_ops.h"
#include "tests/kernels/random_values.h"

namespace lasp::kernels {
namespace {

constexpr int64_t kSizes[] = {1, 3, 63, 64, 65, 1000};

template <typename T>
class Operations : public ::testing::Test {
 protected:
  static constexpr double kTolerance = std::numeric_limits<T>::digits > 30 ? 1e-14 : 1e-6;
};

using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Operations, Types);

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

TYPED_TEST(Operations, Gemm) {
  using T = TypeParam;
  const int64_t m = 65;
  const int64_t n = 33;
  const int64_t k = 70;
  for (const bool transpose_a : {false, true}) {
    for (const bool transpose_b : {false, true}) {
      const std::vector<double> a = RandomValues<T>(m * k, 1);
      const std::vector<double> b = RandomValues<T>(k * n, 2);
      const std::vector<double> start = RandomValues<T>(m * n, 3);
      std::vector<double> expected = reference::Gemm(transpose_a, transpose_b, m, n, k, a, b);
      for (size_t i = 0; i < expected.size(); ++i) {
        expected[i] = 0.5 * expected[i] + 2.0 * start[i];
      }
      const std::vector<T> a_t = Converted<T>(a);
      const std::vector<T> b_t = Converted<T>(b);
      std::vector<T> c = Converted<T>(start);
      cpu::Gemm<T>({.transpose_a = transpose_a,
                    .transpose_b = transpose_b,
                    .m = m,
                    .n = n,
                    .k = k,
                    .alpha = T{0.5},
                    .a = a_t.data(),
                    .a_stride = transpose_a ? m : k,
                    .b = b_t.data(),
                    .b_stride = transpose_b ? k : n,
                    .beta = T{2},
                    .c = c.data(),
                    .c_stride = n});
      EXPECT_LE(RelativeRms(c, expected), this->kTolerance);
    }
  }
}

TYPED_TEST(Operations, EmbeddingScalesAndAddsUp) {
  using T = TypeParam;
  for (const int64_t width : kSizes) {
    const std::vector<int32_t> ids = {2, 0, 2, 4, 2, 1, 1};
    const auto tokens = static_cast<int64_t>(ids.size());
    const std::vector<double> table = RandomValues<T>(5 * width, 1);
    const std::vector<double> gradient = RandomValues<T>(tokens * width, 2);
    std::vector<double> expected(ids.size() * static_cast<size_t>(width));
    std::vector<double> expected_gradient = RandomValues<T>(5 * width, 3);
    std::vector<T> table_gradient = Converted<T>(expected_gradient);
    for (size_t n = 0; n < ids.size(); ++n) {
      for (size_t c = 0; c < static_cast<size_t>(width); ++c) {
        const size_t row = static_cast<size_t>(ids[n]) * static_cast<size_t>(width) + c;
        const size_t at = n * static_cast<size_t>(width) + c;
        expected[at] = 16.0 * table[row];
        expected_gradient[row] += 16.0 * gradient[at];
      }
    }
    const std::vector<T> table_t = Converted<T>(table);
    const std::vector<T> gradient_t = Converted<T>(gradient);
    std::vector<T> output(expected.size());
    cpu::EmbeddingForward<T>({tokens, width, 16.0, ids.data(), table_t.data(), output.data()});
    cpu::EmbeddingBackward<T>(
        {tokens, width, 16.0, ids.data(), gradient_t.data(), table_gradient.data()});
    EXPECT_LE(RelativeRms(output, expected), this->kTolerance);
    EXPECT_LE(RelativeRms(table_gradient, expected_gradient), this->kTolerance);
  }
}

TYPED_TEST(Operations, RmsNormWithAndWithoutResidual) {
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

TYPED_TEST(Operations, RmsNormOfZerosIsZero) {
  using T = TypeParam;
  std::vector<T> x(7);
  std::vector<T> y(7, T{1});
  cpu::RmsNormForward<T>({.rows = 1, .width = 7, .input = x.data(), .output = y.data()});
  EXPECT_EQ(y, x);
}

TYPED_TEST(Operations, GatedRmsNormOnPackedColumns) {
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

TYPED_TEST(Operations, SiluOnAColumnRange) {
  using T = TypeParam;
  const int64_t rows = 3;
  for (const int64_t width : kSizes) {
    const int64_t stride = 2 * width;
    const std::vector<double> packed = RandomValues<T>(rows * stride, 1, 3.0);
    const std::vector<double> z = Columns(packed, stride, width, width);
    const std::vector<double> d_y = RandomValues<T>(rows * width, 2);
    std::vector<double> expected;
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

TYPED_TEST(Operations, SiluAtTheEndsOfTheRange) {
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

TYPED_TEST(Operations, GluOnHalvesAndInPlace) {
  using T = TypeParam;
  const int64_t rows = 4;
  for (const int64_t width : kSizes) {
    const int64_t stride = 2 * width;
    const std::vector<double> packed = RandomValues<T>(rows * stride, 1);
    const std::vector<double> a = Columns(packed, stride, 0, width);
    const std::vector<double> b = Columns(packed, stride, width, width);
    const std::vector<double> d_y = RandomValues<T>(rows * width, 2);
    std::vector<T> packed_t = Converted<T>(packed);
    const std::vector<T> d_y_t = Converted<T>(d_y);
    std::vector<T> y(a.size());
    T* const first = packed_t.data();
    T* const second = first + width;
    cpu::GluForward<T>({rows, width, first, stride, second, stride, y.data()});
    EXPECT_LE(RelativeRms(y, Times(a, b)), this->kTolerance);
    cpu::GluBackward<T>(
        {rows, width, first, stride, second, stride, d_y_t.data(), first, stride, second, stride});
    const std::vector<double> gradient(packed_t.begin(), packed_t.end());
    EXPECT_LE(RelativeRms(Columns(gradient, stride, 0, width), Times(d_y, b)), this->kTolerance);
    EXPECT_LE(RelativeRms(Columns(gradient, stride, width, width), Times(d_y, a)),
              this->kTolerance);
  }
}

TYPED_TEST(Operations, CrossEntropyChunkByChunk) {
  using T = TypeParam;
  for (const int64_t vocabulary : {2, 3, 64, 65, 1000, 50257}) {
    const std::vector<int32_t> labels = {0, kIgnoredLabel, static_cast<int32_t>(vocabulary - 1), 1,
                                         0};
    const auto rows = static_cast<int64_t>(labels.size());
    const std::vector<double> logits = RandomValues<T>(rows * vocabulary, 1, 4.0);
    const reference::CrossEntropyResult expected =
        reference::CrossEntropy(vocabulary, logits, labels);
    const double scale = 0.25;
    std::vector<double> expected_gradient = expected.gradient;
    for (double& value : expected_gradient) {
      value *= scale;
    }
    std::vector<T> in_place = Converted<T>(logits);
    double loss = 10;
    for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 2}, {2, rows}}) {
      T* const chunk = in_place.data() + begin * vocabulary;
      cpu::CrossEntropy<T>({.rows = end - begin,
                            .vocabulary = vocabulary,
                            .logits = chunk,
                            .logits_stride = vocabulary,
                            .labels = labels.data() + begin,
                            .gradient_scale = scale,
                            .gradient = chunk,
                            .gradient_stride = vocabulary,
                            .loss_sum = &loss});
    }
    EXPECT_NEAR(loss - 10, expected.loss_sum, this->kTolerance * expected.loss_sum * 10);
    EXPECT_LE(RelativeRms(in_place, expected_gradient), 2 * this->kTolerance) << vocabulary;
  }
}

TYPED_TEST(Operations, CrossEntropyOfExtremeLogits) {
  using T = TypeParam;
  const int32_t label = 1;
  const auto loss_of = [&](std::vector<T> logits) {
    double loss = 0;
    cpu::CrossEntropy<T>({.rows = 1,
                          .vocabulary = static_cast<int64_t>(logits.size()),
                          .logits = logits.data(),
                          .logits_stride = static_cast<int64_t>(logits.size()),
                          .labels = &label,
                          .loss_sum = &loss});
    return loss;
  };
  EXPECT_NEAR(loss_of({T{30000}, T{-30000}}), 60000, 1e-2);
  EXPECT_NEAR(loss_of({T{-30000}, T{30000}}), 0, 1e-6);
  EXPECT_TRUE(std::isnan(loss_of({std::numeric_limits<T>::quiet_NaN(), T{1}, T{2}})));
  EXPECT_TRUE(std::isnan(loss_of({T{1}, T{2}, std::numeric_limits<T>::quiet_NaN()})));
  EXPECT_FALSE(std::isfinite(loss_of({T{1}, T{2}, std::numeric_limits<T>::infinity()})));
}

TYPED_TEST(Operations, AdamWOverSteps) {
  using T = TypeParam;
  for (const int64_t count : kSizes) {
    const std::vector<double> start = RandomValues<T>(count, 1);
    std::vector<std::vector<double>> gradients;
    gradients.reserve(5);
    for (uint32_t step = 0; step < 5; ++step) {
      gradients.push_back(RandomValues<T>(count, 2 + step));
    }
    const std::vector<double> expected =
        reference::AdamW(start, gradients, 1e-2, 0.9, 0.95, 1e-8, 0.1, 0.5);
    std::vector<T> parameter = Converted<T>(start);
    std::vector<T> first(start.size());
    std::vector<T> second(start.size());
    UpdateControl control{.learning_rate = 1e-2};
    for (size_t step = 0; step < gradients.size(); ++step) {
      const std::vector<T> gradient = Converted<T>(gradients[step]);
      // A norm of 4, clipped to 2: the gradient is halved.
      const double loss = 1;
      const double sum_of_squares = 16;
      cpu::JudgeUpdate({.max_gradient_norm = 2,
                        .loss = &loss,
                        .sum_of_squares = &sum_of_squares,
                        .control = &control});
      cpu::AdamW<T>({.count = count,
                     .parameter = parameter.data(),
                     .gradient = gradient.data(),
                     .first_moment = first.data(),
                     .second_moment = second.data(),
                     .weight_decay = 0.1,
                     .control = &control});
    }
    EXPECT_LE(RelativeRms(parameter, expected), this->kTolerance);
  }
}

TYPED_TEST(Operations, SumOfSquaresFindsWhatIsNotFinite) {
  using T = TypeParam;
  for (const int64_t count : {int64_t{0}, int64_t{1}, int64_t{1000}, int64_t{100001}}) {
    const std::vector<double> x = RandomValues<T>(count, 1);
    double expected = 3;
    for (const double value : x) {
      expected += value * value;
    }
    std::vector<T> x_t = Converted<T>(x);
    double sum = 3;
    cpu::SumOfSquares<T>({count, x_t.data(), &sum});
    EXPECT_NEAR(sum, expected, 1e-12 * expected);
    if (count > 0) {
      for (const T bad :
           {std::numeric_limits<T>::infinity(), std::numeric_limits<T>::quiet_NaN()}) {
        x_t.back() = bad;
        cpu::SumOfSquares<T>({count, x_t.data(), &sum});
        EXPECT_FALSE(std::isfinite(sum));
      }
    }
  }
  const std::vector<float> large(1000, std::numeric_limits<float>::max());
  double sum = 0;
  cpu::SumOfSquares<float>({1000, large.data(), &sum});
  EXPECT_TRUE(std::isfinite(sum));
}

TYPED_TEST(Operations, VectorOps) {
  using T = TypeParam;
  for (const int64_t count : {int64_t{0}, int64_t{1}, int64_t{65}, int64_t{100001}}) {
    std::vector<T> x(static_cast<size_t>(count));
    std::iota(x.begin(), x.end(), T{0});
    std::vector<T> y(x.size());
    cpu::Fill<T>(count, T{2}, y.data());
    cpu::Axpy<T>(count, T{3}, x.data(), y.data());
    cpu::Scale<T>(count, T{0.5}, y.data());
    cpu::Add<T>(count, x.data(), y.data(), y.data());
    for (size_t i = 0; i < x.size(); ++i) {
      ASSERT_EQ(y[i], x[i] + T{0.5} * (T{2} + T{3} * x[i]));
    }
  }
}

}  // namespace
}  // namespace lasp::kernels
