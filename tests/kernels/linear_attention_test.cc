// Linear attention of every rank against the recurrence over single tokens.
#include "kernels/linear_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/decay_slopes.h"
#include "kernels/lrpe.h"
#include "tests/kernels/random_values.h"
#include "tests/kernels/ranks.h"

namespace lasp::kernels {
namespace {

using Slices = std::vector<int64_t>;  // the tokens of each rank

struct Case {
  int64_t batch = 1;
  int64_t heads = 2;
  int64_t key_size = 16;
  int64_t value_size = 16;
  std::vector<Slices> splits;  // of the same tokens
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
  x.tokens = std::accumulate(c.splits[0].begin(), c.splits[0].end(), int64_t{0});
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

// Relative RMS errors, the largest of the ranks.
struct Errors {
  double output = 0;
  double q = 0;
  double k = 0;
  double v = 0;
  double theta = 0;

  double Worst() const { return std::max({output, q, k, v, theta}); }

  void Include(const Errors& other) {
    output = std::max(output, other.output);
    q = std::max(q, other.q);
    k = std::max(k, other.k);
    v = std::max(v, other.v);
    theta = std::max(theta, other.theta);
  }
};

template <typename T>
Errors Compare(const reference::LinearAttention& x, const GroupResult<T>& group,
               const std::vector<double>& output,
               const reference::LinearAttentionGradients& gradients) {
  Errors worst;
  for (const RankResult<T>& rank : group.ranks) {
    const auto error = [&](const std::vector<T>& actual, const std::vector<double>& expected,
                           int64_t width) {
      return RelativeRms(actual, Slice(expected, x, width, rank.start, rank.tokens));
    };
    worst.Include({error(rank.output, output, x.value_size), error(rank.q, gradients.q, x.key_size),
                   error(rank.k, gradients.k, x.key_size), error(rank.v, gradients.v, x.value_size),
                   RelativeRms(group.theta, gradients.theta)});
  }
  return worst;
}

// Holds every split of every case against the bar, and prints the worst figures.
template <typename T>
void Check(const std::string& name, const std::vector<Case>& cases) {
  Errors worst;
  for (const Case& c : cases) {
    const reference::LinearAttention x = Problem<T>(c);
    const std::vector<double> d_o = RandomValues<T>(static_cast<int64_t>(x.v.size()), 4);
    const std::vector<double> output = reference::LinearAttentionForward(x);
    const reference::LinearAttentionGradients gradients =
        reference::LinearAttentionBackward(x, d_o);
    for (const Slices& slices : c.splits) {
      const Errors e = Compare(x, RunRanks<T>(x, d_o, slices), output, gradients);
      worst.Include(e);
      EXPECT_LE(e.Worst(), Tolerance<T>())
          << name << ": slices " << ::testing::PrintToString(slices) << ", slopes "
          << ::testing::PrintToString(c.slopes) << ", first position " << c.first_position << ", o "
          << e.output << ", dq " << e.q << ", dk " << e.k << ", dv " << e.v << ", dtheta "
          << e.theta;
    }
  }
  std::printf("%-30s fp%zu worst relative RMS: o %.1e dq %.1e dk %.1e dv %.1e dtheta %.1e\n",
              name.c_str(), 8 * sizeof(T), worst.output, worst.q, worst.k, worst.v, worst.theta);
}

// n tokens over so many ranks, unequally where they do not divide.
Slices Split(int64_t tokens, int64_t ranks) {
  Slices slices;
  for (int64_t r = 0; r < ranks; ++r) {
    slices.push_back(tokens * (r + 1) / ranks - tokens * r / ranks);
  }
  return slices;
}

std::vector<Slices> Splits(int64_t tokens, const std::vector<int64_t>& ranks) {
  std::vector<Slices> splits;
  splits.reserve(ranks.size());
  for (const int64_t count : ranks) {
    splits.push_back(Split(tokens, count));
  }
  return splits;
}

template <typename T>
class LinearAttention : public ::testing::Test {
 protected:
  const std::vector<int64_t> ranks_ = {1, 2, 3, 4, 8};
};

using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(LinearAttention, Types);

TYPED_TEST(LinearAttention, AnyLengthOnOneRank) {
  std::vector<Case> cases;
  for (const int64_t tokens : {1, 2, 3, 63, 64, 65, 127, 128, 129, 1000}) {
    cases.push_back({.splits = {{tokens}}});
  }
  Check<TypeParam>("any length, one rank", cases);
}

TYPED_TEST(LinearAttention, AnyNumberOfRanks) {
  Case c = {.batch = 2, .splits = Splits(777, this->ranks_)};
  c.splits.push_back({64, 1, 128, 583, 1});
  Check<TypeParam>("ranks 1 2 3 4 8", {c});
}

TYPED_TEST(LinearAttention, OneTokenARank) {
  std::vector<Case> cases;
  for (const int64_t ranks : this->ranks_) {
    cases.push_back({.splits = {Split(ranks, ranks)}});
    // One token alone has no distance to anything: its dtheta is zero, and no ratio.
    cases.push_back({.splits = {Split(ranks, ranks)}, .rotary = ranks > 1, .first_position = 5});
  }
  Check<TypeParam>("one token a rank", cases);
}

TYPED_TEST(LinearAttention, Slopes) {
  std::vector<Case> cases;
  for (const double slope : {0.0, 3.9e-8, 1e-5, 0.0039, 0.05, 0.5, 0.84, 0.99, 7.0, 200.0}) {
    cases.push_back({.heads = 1, .splits = Splits(500, {1, 3}), .slopes = {slope}});
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
                       .splits = {{70, 64, 13}},
                       .slopes = {0.3, 0.02, 0.0}});
    }
  }
  Check<TypeParam>("unequal key and value sizes", cases);
}

TYPED_TEST(LinearAttention, RotaryAtAnyGlobalPosition) {
  std::vector<Case> cases;
  for (const int64_t position : {int64_t{0}, int64_t{1} << 22, int64_t{1} << 26}) {
    cases.push_back({.batch = 2,
                     .heads = 3,
                     .key_size = 16,
                     .value_size = 24,
                     .splits = Splits(601, this->ranks_),
                     .slopes = {0.5, 0.0039, 0.0},
                     .rotary = true,
                     .first_position = position});
  }
  Check<TypeParam>("rotary from 0, 2^22, 2^26", cases);
}

TYPED_TEST(LinearAttention, RotarySlopes) {
  std::vector<Case> cases;
  for (const double slope : {0.0, 3.9e-8, 0.0039, 0.25, 0.99}) {
    cases.push_back({.heads = 1,
                     .key_size = 32,
                     .value_size = 8,
                     .splits = Splits(1100, {1, 4}),
                     .slopes = {slope},
                     .rotary = true});
  }
  Check<TypeParam>("rotary, slopes 0 to 0.99", cases);
}

// The first and the last layer of a model of 24 layers and 16 heads.
TYPED_TEST(LinearAttention, SlopesOfAModel) {
  std::vector<Case> cases;
  for (const int64_t layer : {0, 23}) {
    Case c = {.heads = 16, .splits = Splits(333, {1, 2}), .rotary = layer == 0};
    c.slopes.resize(16);
    DecaySlopes(layer, 24, 16, c.slopes.data());
    cases.push_back(c);
  }
  Check<TypeParam>("layers 0 and 23 of 24", cases);
}

}  // namespace
}  // namespace lasp::kernels
