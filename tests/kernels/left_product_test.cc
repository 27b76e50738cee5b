// The left product, slice by slice as ring attention forms it, against the recurrence over single
// tokens.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/left_product_attention.h"
#include "kernels/lrpe.h"
#include "kernels/reference/linear_attention.h"
#include "tests/kernels/random_values.h"
#include "tests/kernels/ranks.h"

namespace lasp::kernels {
namespace {

struct Case {
  int64_t tokens;  // of a slice
  int64_t slices;
  bool rotary;
  int64_t key_size = 16;
  int64_t value_size = 24;
};

template <typename T>
class LeftProductTest : public ::testing::Test {
 protected:
  static reference::LinearAttention Problem(const Case& c) {
    reference::LinearAttention x;
    x.batch = 2;
    x.heads = 3;
    x.tokens = c.tokens * c.slices;
    x.key_size = c.key_size;
    x.value_size = c.value_size;
    x.slopes = {0.7, 0.0039, 0.0};
    if (c.rotary) {
      x.theta.resize(static_cast<size_t>(x.heads * x.key_size));
      LrpeTheta(x.heads, x.key_size, x.theta.data());
      // Of two tokens the oracle itself, which works by positions, knows no more digits from afar.
      x.first_position = c.tokens > 2 ? int64_t{1} << 22 : 5;
    }
    x.q = RandomValues<T>(x.batch * x.tokens * x.heads * x.key_size, 1);
    x.k = RandomValues<T>(x.batch * x.tokens * x.heads * x.key_size, 2);
    x.v = RandomValues<T>(x.batch * x.tokens * x.heads * x.value_size, 3);
    return x;
  }

  template <typename U>
  static HeadsView<U> View(const Case& c, U* data, int64_t width) {
    return {data, c.tokens * 3 * width, 3 * width, width};
  }

  // Every slice of queries against its own and every slice before it.
  static void Check(const Case& c) {
    SCOPED_TRACE(std::to_string(c.slices) + " slices of " + std::to_string(c.tokens) +
                 (c.rotary ? " with LRPE" : ""));
    const reference::LinearAttention x = Problem(c);
    const std::vector<double> d_o = RandomValues<T>(static_cast<int64_t>(x.v.size()), 4);
    const std::vector<double> output = reference::LinearAttentionForward(x);
    const reference::LinearAttentionGradients gradients =
        reference::LinearAttentionBackward(x, d_o);
    const LinearAttentionShape shape{.batch = x.batch,
                                     .tokens = c.tokens,
                                     .heads = x.heads,
                                     .key_size = x.key_size,
                                     .value_size = x.value_size,
                                     .slopes = x.slopes.data(),
                                     .theta = c.rotary ? x.theta.data() : nullptr};
    const auto slice = [&](const std::vector<double>& values, int64_t width, int64_t index) {
      return Slice(values, x, width, index * c.tokens, c.tokens);
    };
    const auto part = [&](const std::vector<double>& values, int64_t width, int64_t index) {
      return Converted<T>(slice(values, width, index));
    };
    std::vector<T> theta(x.theta.size());
    std::vector<std::vector<double>> d_k;
    std::vector<std::vector<double>> d_v;
    for (int64_t query = 0; query < c.slices; ++query) {
      const std::vector<T> q = part(x.q, x.key_size, query);
      const std::vector<T> d_out = part(d_o, x.value_size, query);
      // Poisoned: the first call must write them whole.
      std::vector<T> o(d_out.size(), T{77});
      std::vector<T> d_q(q.size(), T{77});
      d_k.emplace_back(q.size());
      d_v.emplace_back(d_out.size());
      for (int64_t key = query; key >= 0; --key) {
        const int64_t distance = (query - key) * c.tokens;
        const std::vector<T> k = part(x.k, x.key_size, key);
        const std::vector<T> v = part(x.v, x.value_size, key);
        std::vector<T> k_part(k.size(), T{77});
        std::vector<T> v_part(v.size(), T{77});
        cpu::LeftProductOutput<T>({shape, distance, View(c, q.data(), x.key_size),
                                   View(c, k.data(), x.key_size), View(c, v.data(), x.value_size),
                                   key < query, View(c, o.data(), x.value_size)});
        cpu::LeftProductGradients<T>(
            {shape, distance, View(c, q.data(), x.key_size), View(c, k.data(), x.key_size),
             View(c, v.data(), x.value_size), View(c, d_out.data(), x.value_size), key < query,
             View(c, d_q.data(), x.key_size), View(c, k_part.data(), x.key_size),
             View(c, v_part.data(), x.value_size), c.rotary ? theta.data() : nullptr});
        for (size_t i = 0; i < k_part.size(); ++i) {
          d_k[static_cast<size_t>(key)][i] += static_cast<double>(k_part[i]);
        }
        for (size_t i = 0; i < v_part.size(); ++i) {
          d_v[static_cast<size_t>(key)][i] += static_cast<double>(v_part[i]);
        }
      }
      EXPECT_LE(RelativeRms(o, slice(output, x.value_size, query)), Tolerance<T>());
      EXPECT_LE(RelativeRms(d_q, slice(gradients.q, x.key_size, query)), Tolerance<T>());
    }
    for (int64_t key = 0; key < c.slices; ++key) {
      const auto at = static_cast<size_t>(key);
      EXPECT_LE(RelativeRms(d_k[at], slice(gradients.k, x.key_size, key)), Tolerance<T>());
      EXPECT_LE(RelativeRms(d_v[at], slice(gradients.v, x.value_size, key)), Tolerance<T>());
    }
    EXPECT_LE(RelativeRms(theta, gradients.theta), Tolerance<T>());
  }
};

using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(LeftProductTest, Types);

TYPED_TEST(LeftProductTest, IsTheRecurrenceForAnyNumberOfSlices) {
  for (const int64_t tokens : {1, 63, 64, 65, 150}) {
    for (const int64_t slices : {1, 2, 4}) {
      this->Check({.tokens = tokens, .slices = slices, .rotary = false});
    }
  }
}

TYPED_TEST(LeftProductTest, TurnsByDistancesWithLrpe) {
  for (const int64_t tokens : {2, 63, 64, 65, 150}) {
    for (const int64_t slices : {1, 3}) {
      this->Check({.tokens = tokens, .slices = slices, .rotary = true});
    }
  }
  this->Check({.tokens = 70, .slices = 2, .rotary = true, .key_size = 33, .value_size = 7});
}

TYPED_TEST(LeftProductTest, ASliceFarAwayAddsNothingThatIsNotANumber) {
  constexpr int64_t kTokens = 3;
  const double slope = 0.7;
  const std::vector<TypeParam> ones(kTokens * 2, TypeParam{1});
  std::vector<TypeParam> output(kTokens * 2, TypeParam{5});
  const HeadsView<const TypeParam> in{ones.data(), kTokens * 2, 2, 2};
  cpu::LeftProductOutput<TypeParam>({.shape = {.batch = 1,
                                               .tokens = kTokens,
                                               .heads = 1,
                                               .key_size = 2,
                                               .value_size = 2,
                                               .slopes = &slope,
                                               .theta = nullptr},
                                     .distance = int64_t{1} << 26,
                                     .q = in,
                                     .k = in,
                                     .v = in,
                                     .adds = true,
                                     .output = {output.data(), kTokens * 2, 2, 2}});
  EXPECT_EQ(output, std::vector<TypeParam>(kTokens * 2, TypeParam{5}));
}

}  // namespace
}  // namespace lasp::kernels
