// Linear attention of every rank against the recurrence over single tokens.
#include "kernels/linear_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "kernels/lrpe.h"
#include "tests/kernels/random_values.h"
#include "tests/kernels/ranks.h"

namespace lasp::kernels {
namespace {

struct Case {
  int64_t batch = 1;
  int64_t heads = 2;
  int64_t key_size = 16;
  int64_t value_size = 16;
  std::vector<int64_t> lengths;  // a slice a rank
  std::vector<double> slopes = {0.7071, 0.0039};
  bool rotary = false;
  int64_t first_position = 0;
};

template <typename T>
reference::LinearAttention Problem(const Case& c) {
  reference::LinearAttention x;
  x.batch = c.batch;
  x.heads = c.heads;
  x.key_size = c.key_size;
  x.value_size = c.value_size;
  for (const int64_t length : c.lengths) {
    x.tokens += length;
  }
  for (int64_t head = 0; head < c.heads; ++head) {
    x.slopes.push_back(c.slopes[static_cast<size_t>(head) % c.slopes.size()]);
  }
  if (c.rotary) {
    x.theta.resize(static_cast<size_t>(c.heads * c.key_size));
    LrpeTheta(c.heads, c.key_size, x.theta.data());
  }
  x.first_position = c.first_position;
  x.q = RandomValues<T>(x.batch * x.tokens * x.heads * x.key_size, 1);
  x.k = RandomValues<T>(x.batch * x.tokens * x.heads * x.key_size, 2);
  x.v = RandomValues<T>(x.batch * x.tokens * x.heads * x.value_size, 3);
  return x;
}

// The largest relative RMS error over the ranks.
struct Errors {
  double output = 0;
  double q = 0;
  double k = 0;
  double v = 0;
  double theta = 0;

  double Worst() const { return std::max({output, q, k, v, theta}); }
};

template <typename T>
Errors Measure(const Case& c) {
  const reference::LinearAttention x = Problem<T>(c);
  const std::vector<double> d_o = RandomValues<T>(static_cast<int64_t>(x.v.size()), 4);
  const std::vector<double> output = reference::LinearAttentionForward(x);
  const reference::LinearAttentionGradients gradients = reference::LinearAttentionBackward(x, d_o);
  const GroupResult<T> group = RunRanks<T>(x, d_o, c.lengths);
  Errors worst;
  for (const RankResult<T>& rank : group.ranks) {
    const auto error = [&](const std::vector<T>& actual, const std::vector<double>& expected,
                           int64_t width) {
      return RelativeRms(actual, Slice(expected, x, width, rank.start, rank.tokens));
    };
    worst.output = std::max(worst.output, error(rank.output, output, x.value_size));
    worst.q = std::max(worst.q, error(rank.q, gradients.q, x.key_size));
    worst.k = std::max(worst.k, error(rank.k, gradients.k, x.key_size));
    worst.v = std::max(worst.v, error(rank.v, gradients.v, x.value_size));
  }
  worst.theta = RelativeRms(group.theta, gradients.theta);
  return worst;
}

// Prints the figures, and holds them against the bar.
template <typename T>
void Check(const std::string& name, const std::vector<Case>& cases) {
  Errors worst;
  for (const Case& c : cases) {
    const Errors e = Measure<T>(c);
    worst = {std::max(worst.output, e.output), std::max(worst.q, e.q), std::max(worst.k, e.k),
             std::max(worst.v, e.v), std::max(worst.theta, e.theta)};
    // A single token has no angle to learn from, so that its dtheta of exact zeros is no ratio.
    EXPECT_LE(e.Worst(), Tolerance<T>())
        << name << ": slices " << ::testing::PrintToString(c.lengths) << ", slopes "
        << ::testing::PrintToString(c.slopes) << ", first position " << c.first_position << ", o "
        << e.output << ", dq " << e.q << ", dk " << e.k << ", dv " << e.v << ", dtheta " << e.theta;
  }
  std::printf("%-34s %s worst relative RMS: o %.2e dq %.2e dk %.2e dv %.2e dtheta %.2e\n",
              name.c_str(), sizeof(T) == 4 ? "fp32" : "fp64", worst.output, worst.q, worst.k,
              worst.v, worst.theta);
}

// The lengths of the slices of n tokens over some ranks, unequal where they do not divide.
std::vector<int64_t> Split(int64_t tokens, int64_t ranks) {
  std::vector<int64_t> lengths;
  for (int64_t r = 0; r < ranks; ++r) {
    lengths.push_back(tokens * (r + 1) / ranks - tokens * r / ranks);
  }
  return lengths;
}

constexpr int64_t kRanks[] = {1, 2, 3, 4, 8};

template <typename T>
class LinearAttention : public ::testing::Test {};

using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(LinearAttention, Types);

TYPED_TEST(LinearAttention, AnyLengthOnOneRank) {
  std::vector<Case> cases;
  for (const int64_t tokens : {1, 2, 3, 63, 64, 65, 127, 128, 129, 1000}) {
    cases.push_back({.lengths = {tokens}});
  }
  Check<TypeParam>("any length, one rank", cases);
}

TYPED_TEST(LinearAttention, AnyNumberOfRanks) {
  std::vector<Case> cases;
  for (const int64_t ranks : kRanks) {
    cases.push_back({.batch = 2, .lengths = Split(777, ranks)});
  }
  Check<TypeParam>("ranks 1 2 3 4 8", cases);
}

TYPED_TEST(LinearAttention, OneTokenARank) {
  std::vector<Case> cases;
  for (const int64_t ranks : kRanks) {
    cases.push_back({.lengths = Split(ranks, ranks)});
    cases.push_back({.lengths = Split(ranks, ranks), .rotary = ranks > 1, .first_position = 5});
  }
  Check<TypeParam>("one token a rank", cases);
}

TYPED_TEST(LinearAttention, Slopes) {
  std::vector<Case> cases;
  for (const double slope : {0.0, 3.9e-8, 1e-5, 0.0039, 0.05, 0.5, 0.84, 0.99, 7.0, 200.0}) {
    for (const int64_t ranks : {1, 3}) {
      cases.push_back({.heads = 1, .lengths = Split(500, ranks), .slopes = {slope}});
    }
  }
  Check<TypeParam>("slopes 0 to 200", cases);
}

TYPED_TEST(LinearAttention, UnequalKeyAndValueSizes) {
  std::vector<Case> cases;
  for (const int64_t key_size : {1, 5, 32, 48, 128}) {
    for (const int64_t value_size : {1, 7, 33, 64}) {
      cases.push_back({.batch = 2,
                       .heads = 3,
                       .key_size = key_size,
                       .value_size = value_size,
                       .lengths = {70, 64, 13},
                       .slopes = {0.3, 0.02, 0.0}});
    }
  }
  Check<TypeParam>("unequal key and value sizes", cases);
}

TYPED_TEST(LinearAttention, RotaryAtAnyGlobalPosition) {
  std::vector<Case> cases;
  for (const int64_t position : {int64_t{0}, int64_t{1} << 22, int64_t{1} << 26}) {
    for (const int64_t ranks : kRanks) {
      cases.push_back({.batch = 2,
                       .heads = 3,
                       .key_size = 16,
                       .value_size = 24,
                       .lengths = Split(601, ranks),
                       .slopes = {0.5, 0.0039, 0.0},
                       .rotary = true,
                       .first_position = position});
    }
  }
  Check<TypeParam>("rotary from 0, 2^22, 2^26", cases);
}

TYPED_TEST(LinearAttention, RotarySlopes) {
  std::vector<Case> cases;
  for (const double slope : {0.0, 3.9e-8, 0.0039, 0.25, 0.99}) {
    for (const int64_t ranks : {1, 4}) {
      cases.push_back({.heads = 1,
                       .key_size = 32,
                       .value_size = 8,
                       .lengths = Split(1100, ranks),
                       .slopes = {slope},
                       .rotary = true});
    }
  }
  Check<TypeParam>("rotary, slopes 0 to 0.99", cases);
}

}  // namespace
}  // namespace lasp::kernels
