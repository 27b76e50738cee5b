#include "worker/inference/token_sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <vector>

namespace lasp::worker {
namespace {

const std::vector<float> kLogits = {1.0F, 3.0F, 2.0F, 3.0F, -1.0F};

std::map<int32_t, int> Drawn(const SamplingOptions& options, int draws, uint64_t seed = 1,
                             const std::vector<float>& logits = kLogits) {
  TokenSampler sampler(options, seed);
  std::map<int32_t, int> counts;
  for (int i = 0; i < draws; ++i) {
    ++counts[sampler.Sample(logits).value()];
  }
  return counts;
}

std::set<int32_t> Tokens(const SamplingOptions& options) {
  std::set<int32_t> tokens;
  for (const auto& [token, count] : Drawn(options, 2000)) {
    tokens.insert(token);
  }
  return tokens;
}

TEST(TokenSamplerTest, WithoutTemperatureTakesTheFirstOfTheMostLikely) {
  EXPECT_EQ(Drawn({.temperature = 0}, 5), (std::map<int32_t, int>{{1, 5}}));
}

TEST(TokenSamplerTest, LimitsWhatMayBeDrawn) {
  EXPECT_EQ(Tokens({.temperature = 3}), (std::set<int32_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(Tokens({.temperature = 3, .top_k = 1}), (std::set<int32_t>{1}));
  EXPECT_EQ(Tokens({.temperature = 3, .top_k = 3}), (std::set<int32_t>{1, 2, 3}));
  EXPECT_EQ(Tokens({.temperature = 3, .top_k = 99}), (std::set<int32_t>{0, 1, 2, 3, 4}));
  // At temperature 1 tokens 1 and 3 hold 0.39 each, token 2 0.14.
  EXPECT_EQ(Tokens({.top_p = 0.3}), (std::set<int32_t>{1}));
  EXPECT_EQ(Tokens({.top_p = 0.5}), (std::set<int32_t>{1, 3}));
  EXPECT_EQ(Tokens({.top_p = 0.8}), (std::set<int32_t>{1, 2, 3}));
  // Of what top_k leaves.
  EXPECT_EQ(Tokens({.top_k = 2, .top_p = 0.9}), (std::set<int32_t>{1, 3}));
  EXPECT_EQ(Tokens({.top_k = 2, .top_p = 0.5}), (std::set<int32_t>{1}));
}

TEST(TokenSamplerTest, DrawsTheDistributionOfTheLogits) {
  constexpr int kDraws = 20'000;
  for (const double temperature : {0.5, 1.0, 2.0}) {
    for (const int64_t top_k : {0, 3}) {
      const auto counts = Drawn({.temperature = temperature, .top_k = top_k}, kDraws, 11);
      std::map<int32_t, double> weights;
      double sum = 0;
      for (const int32_t token :
           top_k == 0 ? std::vector<int32_t>{0, 1, 2, 3, 4} : std::vector<int32_t>{1, 2, 3}) {
        sum += weights[token] = std::exp(kLogits[static_cast<size_t>(token)] / temperature);
      }
      double chi_square = 0;
      for (const auto& [token, weight] : weights) {
        const double expected = kDraws * weight / sum;
        const double found = counts.contains(token) ? counts.at(token) : 0;
        chi_square += (found - expected) * (found - expected) / expected;
      }
      // 4 and 2 degrees of freedom: beyond it once in a thousand.
      EXPECT_LT(chi_square, top_k == 0 ? 18.5 : 13.8) << temperature << " " << top_k;
    }
  }
}

TEST(TokenSamplerTest, TheSeedDecidesTheDraws) {
  const auto draw = [](uint64_t seed) {
    TokenSampler sampler({}, seed);
    std::vector<int32_t> tokens;
    tokens.reserve(20);
    for (int i = 0; i < 20; ++i) {
      tokens.push_back(sampler.Sample(kLogits).value());
    }
    return tokens;
  };
  EXPECT_EQ(draw(5), draw(5));
  EXPECT_NE(draw(5), draw(6));
}

TEST(TokenSamplerTest, SaysThatLogitsAreWorthNothing) {
  TokenSampler sampler({}, 1);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(sampler.Sample({1, nan}).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(sampler.Sample({1, infinity}).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(sampler.Sample({-infinity}).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(sampler.Sample({0, -infinity}).value(), 0);
}

}  // namespace
}  // namespace lasp::worker
