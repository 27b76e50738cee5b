// What a Linear Transformer's layers add to linear attention, against plain fp64 loops: features,
// positions, and attention's normaliser over slices of several ranks.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <vector>

#include "kernels/attention_normaliser.h"
#include "kernels/elu_plus_one.h"
#include "kernels/sinusoidal_positions.h"
#include "tests/kernels/operation_test.h"
#include "tests/kernels/random_values.h"

namespace lasp::kernels {
namespace {

template <typename T>
using LinearTransformer = OperationTest<T>;
TYPED_TEST_SUITE(LinearTransformer, OperationTypes);

TYPED_TEST(LinearTransformer, EluPlusOneIsPositiveAndSmooth) {
  using T = TypeParam;
  constexpr int64_t kRows = 3;
  for (const int64_t width : kSizes) {
    std::vector<double> z = RandomValues<T>(kRows * width, 1, 3.0);
    z[0] = 0;
    const std::vector<double> d_y = RandomValues<T>(kRows * width, 2);
    std::vector<double> y(z.size());
    std::vector<double> d_z(z.size());
    for (size_t i = 0; i < z.size(); ++i) {
      y[i] = z[i] > 0 ? z[i] + 1 : std::exp(z[i]);
      d_z[i] = d_y[i] * (z[i] > 0 ? 1 : std::exp(z[i]));
    }
    const std::vector<T> z_t = Converted<T>(z);
    std::vector<T> y_t(z.size());
    cpu::EluPlusOneForward<T>({.rows = kRows,
                               .width = width,
                               .input = z_t.data(),
                               .input_stride = width,
                               .output = y_t.data(),
                               .output_stride = width});
    EXPECT_LE(RelativeRms(y_t, y), this->kTolerance);
    std::vector<T> d_z_t = Converted<T>(d_y);  // in place
    cpu::EluPlusOneBackward<T>({.rows = kRows,
                                .width = width,
                                .input = z_t.data(),
                                .input_stride = width,
                                .output_gradient = d_z_t.data(),
                                .output_gradient_stride = width,
                                .input_gradient = d_z_t.data(),
                                .input_gradient_stride = width});
    EXPECT_LE(RelativeRms(d_z_t, d_z), this->kTolerance);
  }
}

template <typename T>
std::vector<T> Positions(int64_t sequences, int64_t first, int64_t tokens, int64_t width) {
  std::vector<T> x(static_cast<size_t>(sequences * tokens * width));
  cpu::AddSinusoidalPositions<T>({.sequences = sequences,
                                  .tokens = tokens,
                                  .width = width,
                                  .first_position = first,
                                  .x = x.data()});
  return x;
}

TYPED_TEST(LinearTransformer, PositionsAreSinesAndCosinesHoweverFarOut) {
  using T = TypeParam;
  constexpr int64_t kTokens = 130;
  for (const int64_t width : {1, 7, 64}) {
    for (const int64_t first : {int64_t{0}, int64_t{63}, int64_t{1} << 26}) {
      const std::vector<T> x = Positions<T>(1, first, kTokens, width);
      for (int64_t i = 0; i < kTokens * width; ++i) {
        const int64_t column = i % width;
        const int64_t position = first + i / width;
        const int64_t even = column - column % 2;
        const double angle =
            static_cast<double>(position) /
            std::pow(10000.0, static_cast<double>(even) / static_cast<double>(width));
        // The angle itself is rounded, here and there.
        ASSERT_NEAR(x[static_cast<size_t>(i)], column % 2 == 0 ? std::sin(angle) : std::cos(angle),
                    this->kTolerance + 1e-15 * angle + 1e-13)
            << "token " << first + i / width << " column " << column;
      }
    }
  }
}

TYPED_TEST(LinearTransformer, APositionIsTheSameBitsInEverySlice) {
  using T = TypeParam;
  constexpr int64_t kWidth = 10;
  constexpr int64_t kTokens = 200;
  const std::vector<T> whole = Positions<T>(2, 1000, kTokens, kWidth);
  for (const int64_t slice : {1, 7, 64, 65}) {
    for (int64_t begin = 0; begin < kTokens; begin += slice) {
      const int64_t tokens = std::min(slice, kTokens - begin);
      const std::vector<T> part = Positions<T>(2, 1000 + begin, tokens, kWidth);
      for (int64_t sequence = 0; sequence < 2; ++sequence) {
        const auto at = part.begin() + sequence * tokens * kWidth;
        EXPECT_TRUE(std::equal(at, at + tokens * kWidth,
                               whole.begin() + (sequence * kTokens + begin) * kWidth));
      }
    }
  }
}

constexpr int64_t kBatch = 2;
constexpr int64_t kHeads = 3;

// [batch, tokens, heads, size].
template <typename T>
HeadsView<T> View(std::vector<T>& values, int64_t tokens, int64_t size) {
  return {values.data(), tokens * kHeads * size, kHeads * size, size};
}

struct Whole {
  int64_t tokens;
  int64_t size;
  std::vector<double> q, k, numerators, output_gradient;

  size_t At(int64_t batch, int64_t token, int64_t head, int64_t column) const {
    return static_cast<size_t>(((batch * tokens + token) * kHeads + head) * size + column);
  }
};

// What the normaliser computes of the whole, token by token.
struct Expected {
  std::vector<double> output, numerator_gradient, q_gradient, k_gradient;
};

Expected ByTheFormulas(const Whole& whole) {
  const std::vector<double> zeros(whole.q.size());
  Expected expected{zeros, zeros, zeros, zeros};
  for (int64_t batch = 0; batch < kBatch; ++batch) {
    for (int64_t head = 0; head < kHeads; ++head) {
      for (int64_t n = 0; n < whole.tokens; ++n) {
        double denominator = kDenominatorEpsilon;
        for (int64_t m = 0; m <= n; ++m) {
          for (int64_t c = 0; c < whole.size; ++c) {
            denominator +=
                whole.q[whole.At(batch, n, head, c)] * whole.k[whole.At(batch, m, head, c)];
          }
        }
        double e = 0;
        for (int64_t c = 0; c < whole.size; ++c) {
          const size_t at = whole.At(batch, n, head, c);
          expected.output[at] = whole.numerators[at] / denominator;
          expected.numerator_gradient[at] = whole.output_gradient[at] / denominator;
          e -= whole.output_gradient[at] * expected.output[at] / denominator;
        }
        for (int64_t m = 0; m <= n; ++m) {
          for (int64_t c = 0; c < whole.size; ++c) {
            expected.q_gradient[whole.At(batch, n, head, c)] +=
                e * whole.k[whole.At(batch, m, head, c)];
            expected.k_gradient[whole.At(batch, m, head, c)] +=
                e * whole.q[whole.At(batch, n, head, c)];
          }
        }
      }
    }
  }
  return expected;
}

// One rank's slice, and what it computes.
template <typename T>
struct Slice {
  LinearAttentionShape shape;
  std::vector<T> q, k, output, gradient, q_gradient, k_gradient, denominators, key_sum, query_sum;

  Slice(const Whole& whole, int64_t begin, int64_t tokens)
      : shape{.batch = kBatch,
              .tokens = tokens,
              .heads = kHeads,
              .key_size = whole.size,
              .value_size = whole.size,
              .slopes = nullptr,
              .theta = nullptr},
        q(Cut(whole, whole.q, begin)),
        k(Cut(whole, whole.k, begin)),
        output(Cut(whole, whole.numerators, begin)),
        gradient(Cut(whole, whole.output_gradient, begin)),
        q_gradient(q.size()),
        k_gradient(q.size()),
        denominators(static_cast<size_t>(kBatch * tokens * kHeads)),
        key_sum(static_cast<size_t>(kBatch * kHeads * whole.size)),
        query_sum(key_sum.size()) {}

  HeadsView<T> Of(std::vector<T>& values) { return View(values, shape.tokens, shape.key_size); }

 private:
  std::vector<T> Cut(const Whole& whole, const std::vector<double>& values, int64_t begin) const {
    std::vector<T> cut;
    for (int64_t batch = 0; batch < kBatch; ++batch) {
      const auto first = values.begin() + (batch * whole.tokens + begin) * kHeads * whole.size;
      std::transform(first, first + shape.tokens * kHeads * whole.size, std::back_inserter(cut),
                     [](double value) { return static_cast<T>(value); });
    }
    return cut;
  }
};

template <typename T>
void ExpectSlice(const Whole& whole, int64_t begin, const Slice<T>& slice,
                 const std::vector<T>& actual, const std::vector<double>& expected,
                 const char* what) {
  std::vector<double> part;
  for (int64_t batch = 0; batch < kBatch; ++batch) {
    const auto first = expected.begin() + (batch * whole.tokens + begin) * kHeads * whole.size;
    part.insert(part.end(), first, first + slice.shape.tokens * kHeads * whole.size);
  }
  EXPECT_LE(RelativeRms(actual, part), Tolerance<T>()) << what << " from token " << begin;
}

TYPED_TEST(LinearTransformer, TheNormaliserOfSlicesIsThatOfTheWhole) {
  using T = TypeParam;
  for (const int64_t tokens : {1, 5, 130}) {
    for (const int64_t size : {1, 5, 64}) {
      const int64_t count = kBatch * tokens * kHeads * size;
      Whole whole{.tokens = tokens,
                  .size = size,
                  .q = RandomValues<T>(count, 1),
                  .k = RandomValues<T>(count, 2),
                  .numerators = RandomValues<T>(count, 3),
                  .output_gradient = RandomValues<T>(count, 4)};
      // As features are.
      for (size_t i = 0; i < whole.q.size(); ++i) {
        whole.q[i] = std::abs(whole.q[i]);
        whole.k[i] = std::abs(whole.k[i]);
      }
      const Expected expected = ByTheFormulas(whole);
      for (const int64_t ranks : {1, 2, 3}) {
        SCOPED_TRACE(::testing::Message()
                     << tokens << " tokens of " << size << ", ranks " << ranks);
        if (ranks > tokens) {
          continue;
        }
        std::vector<int64_t> begins;
        std::vector<Slice<T>> slices;
        std::vector<T> sum_in(static_cast<size_t>(kBatch * kHeads * size));
        for (int64_t rank = 0; rank < ranks; ++rank) {
          begins.push_back(tokens * rank / ranks);
          slices.emplace_back(whole, begins.back(), tokens * (rank + 1) / ranks - begins.back());
          Slice<T>& slice = slices.back();
          cpu::KeySum<T>(
              {.shape = slice.shape, .k = slice.Of(slice.k), .sum = slice.key_sum.data()});
          cpu::Normalise<T>({.shape = slice.shape,
                             .q = slice.Of(slice.q),
                             .k = slice.Of(slice.k),
                             .sum_in = rank == 0 ? nullptr : sum_in.data(),
                             .output = slice.Of(slice.output),
                             .denominators = slice.denominators.data()});
          ExpectSlice(whole, begins.back(), slice, slice.output, expected.output, "output");
          cpu::SplitGradient<T>({.shape = slice.shape,
                                 .output = slice.Of(slice.output),
                                 .gradient = slice.Of(slice.gradient),
                                 .denominators = slice.denominators.data()});
          ExpectSlice(whole, begins.back(), slice, slice.gradient, expected.numerator_gradient,
                      "numerators' gradient");
          cpu::AddQueryGradients<T>({.shape = slice.shape,
                                     .k = slice.Of(slice.k),
                                     .denominator_gradient = slice.denominators.data(),
                                     .sum_in = rank == 0 ? nullptr : sum_in.data(),
                                     .q_gradient = slice.Of(slice.q_gradient)});
          ExpectSlice(whole, begins.back(), slice, slice.q_gradient, expected.q_gradient,
                      "queries' gradient");
          for (size_t i = 0; i < sum_in.size(); ++i) {
            sum_in[i] += slice.key_sum[i];
          }
        }
        std::vector<T> sum_gradient_in(sum_in.size());
        for (size_t rank = slices.size(); rank-- > 0;) {
          Slice<T>& slice = slices[rank];
          cpu::AddKeyGradients<T>({.shape = slice.shape,
                                   .q = slice.Of(slice.q),
                                   .denominator_gradient = slice.denominators.data(),
                                   .sum_gradient_in = sum_gradient_in.data(),
                                   .k_gradient = slice.Of(slice.k_gradient)});
          ExpectSlice(whole, begins[rank], slice, slice.k_gradient, expected.k_gradient,
                      "keys' gradient");
          cpu::QuerySum<T>({.shape = slice.shape,
                            .q = slice.Of(slice.q),
                            .denominator_gradient = slice.denominators.data(),
                            .sum = slice.query_sum.data()});
          for (size_t i = 0; i < sum_gradient_in.size(); ++i) {
            sum_gradient_in[i] += slice.query_sum[i];
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace lasp::kernels
