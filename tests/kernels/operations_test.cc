// Products, sums and updates against their fp64 oracles, at sizes that divide nothing.
#include "kernels/reference/operations.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/adamw.h"
#include "kernels/cross_entropy.h"
#include "kernels/embedding.h"
#include "kernels/gemm.h"
#include "kernels/global_norm.h"
#include "kernels/vector_ops.h"
#include "tests/kernels/operation_test.h"
#include "tests/kernels/random_values.h"

namespace lasp::kernels {
namespace {

template <typename T>
using Operations = OperationTest<T>;
TYPED_TEST_SUITE(Operations, OperationTypes);

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
