// Linear attention over several documents in a sequence: what the recurrence gives for each
// document alone, wherever documents start and however the sequence is cut into ranks' slices.
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

constexpr int64_t kBatch = 2;
constexpr int64_t kTokens = 300;

template <typename T>
reference::LinearAttention Problem(bool rotary, const std::vector<double>& slopes) {
  reference::LinearAttention x;
  x.batch = kBatch;
  x.heads = static_cast<int64_t>(slopes.size());
  x.key_size = 6;
  x.value_size = 5;
  x.tokens = kTokens;
  x.slopes = slopes;
  if (rotary) {
    x.theta.resize(static_cast<size_t>(x.heads * x.key_size));
    LrpeTheta(x.heads, x.key_size, x.theta.data());
  }
  x.q = RandomValues<T>(x.batch * x.tokens * x.heads * x.key_size, 1);
  x.k = RandomValues<T>(x.batch * x.tokens * x.heads * x.key_size, 2);
  x.v = RandomValues<T>(x.batch * x.tokens * x.heads * x.value_size, 3);
  return x;
}

struct Expected {
  std::vector<double> output;
  reference::LinearAttentionGradients gradients;
};

// The rows [begin, begin + tokens) of [batch, tokens, heads, width] are one sequence's own.
std::vector<double> Cut(const std::vector<double>& values, int64_t width, int64_t begin,
                        int64_t tokens) {
  const auto first = values.begin() + begin * width;
  return {first, first + tokens * width};
}

// Each document alone. `starts` ascend.
Expected DocumentByDocument(const reference::LinearAttention& x, const std::vector<double>& d_o,
                            std::vector<int64_t> starts) {
  for (int64_t row = 0; row <= x.batch; ++row) {
    starts.push_back(row * x.tokens);
  }
  std::sort(starts.begin(), starts.end());
  Expected expected;
  expected.gradients.theta.resize(x.theta.size());
  const auto append = [](const std::vector<double>& from, std::vector<double>& to) {
    to.insert(to.end(), from.begin(), from.end());
  };
  for (size_t i = 0; i + 1 < starts.size(); ++i) {
    const int64_t begin = starts[i];
    reference::LinearAttention document = x;
    document.batch = 1;
    document.tokens = starts[i + 1] - begin;
    if (document.tokens == 0) {  // a row's start that is marked, too
      continue;
    }
    document.q = Cut(x.q, x.heads * x.key_size, begin, document.tokens);
    document.k = Cut(x.k, x.heads * x.key_size, begin, document.tokens);
    document.v = Cut(x.v, x.heads * x.value_size, begin, document.tokens);
    const reference::LinearAttentionGradients gradients = reference::LinearAttentionBackward(
        document, Cut(d_o, x.heads * x.value_size, begin, document.tokens));
    append(reference::LinearAttentionForward(document), expected.output);
    append(gradients.q, expected.gradients.q);
    append(gradients.k, expected.gradients.k);
    append(gradients.v, expected.gradients.v);
    for (size_t c = 0; c < gradients.theta.size(); ++c) {
      expected.gradients.theta[c] += gradients.theta[c];
    }
  }
  return expected;
}

// Starts of the first sequence; the second's are others.
std::vector<std::vector<int64_t>> Layouts() {
  std::vector<int64_t> every(2 * kTokens);
  for (size_t i = 0; i < every.size(); ++i) {
    every[i] = static_cast<int64_t>(i);
  }
  return {
      {100, 200, kTokens + 150},                // at ranks' borders
      {99, 199, kTokens + 101, kTokens + 201},  // one before, one after
      {10, 20, 21, 22, 64, 128, kTokens + 63},  // several in a rank, blocks' borders
      {40, 290, kTokens + 299},                 // one over three ranks; one of one token
      {0, kTokens, kTokens + 1},                // where sequences begin
      {kTokens + 70},                           // in one sequence alone
      every,                                    // of one token each
  };
}

template <typename T>
class DocumentsTest : public ::testing::Test {};

using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(DocumentsTest, Types);

TYPED_TEST(DocumentsTest, EachIsComputedAsIfItWereAlone) {
  using T = TypeParam;
  double worst = 0;
  for (const bool rotary : {false, true}) {
    const reference::LinearAttention x = Problem<T>(rotary, {0.3, 0.0039, 0.0});
    const std::vector<double> d_o = RandomValues<T>(static_cast<int64_t>(x.v.size()), 4);
    for (const std::vector<int64_t>& starts : Layouts()) {
      const Expected expected = DocumentByDocument(x, d_o, starts);
      for (const std::vector<int64_t>& slices : std::vector<std::vector<int64_t>>{
               {300}, {150, 150}, {100, 100, 100}, {75, 75, 75, 75}, {64, 1, 128, 106, 1}}) {
        SCOPED_TRACE(::testing::PrintToString(starts) + " in " + ::testing::PrintToString(slices) +
                     (rotary ? ", rotary" : ""));
        const GroupResult<T> group = RunRanks<T>(x, d_o, slices, starts);
        for (const RankResult<T>& rank : group.ranks) {
          const auto expect = [&](const std::vector<T>& actual, const std::vector<double>& whole,
                                  int64_t width, const char* what) {
            const double error =
                RelativeRms(actual, Slice(whole, x, width, rank.start, rank.tokens));
            EXPECT_LE(error, Tolerance<T>()) << what << " from token " << rank.start;
            worst = std::max(worst, error);
          };
          expect(rank.output, expected.output, x.value_size, "o");
          expect(rank.q, expected.gradients.q, x.key_size, "dq");
          expect(rank.k, expected.gradients.k, x.key_size, "dk");
          expect(rank.v, expected.gradients.v, x.value_size, "dv");
        }
        if (starts.size() < 2 * kTokens) {  // one token alone is at no distance from anything
          EXPECT_LE(RelativeRms(group.theta, expected.gradients.theta), Tolerance<T>());
        }
      }
    }
  }
  std::printf("documents fp%zu worst relative RMS %.1e\n", 8 * sizeof(T), worst);
}

// Marks where sequences begin anyway, and none elsewhere, change no bit.
TYPED_TEST(DocumentsTest, ASequenceWithoutBordersIsComputedToTheSameBits) {
  using T = TypeParam;
  for (const bool rotary : {false, true}) {
    const reference::LinearAttention x = Problem<T>(rotary, {0.3, 0.0});
    const std::vector<double> d_o = RandomValues<T>(static_cast<int64_t>(x.v.size()), 4);
    const GroupResult<T> joined = RunRanks<T>(x, d_o, {100, 100, 100});
    const GroupResult<T> packed = RunRanks<T>(x, d_o, {100, 100, 100}, {0, kTokens});
    for (size_t rank = 0; rank < joined.ranks.size(); ++rank) {
      EXPECT_EQ(packed.ranks[rank].output, joined.ranks[rank].output);
      EXPECT_EQ(packed.ranks[rank].q, joined.ranks[rank].q);
      EXPECT_EQ(packed.ranks[rank].k, joined.ranks[rank].k);
      EXPECT_EQ(packed.ranks[rank].v, joined.ranks[rank].v);
    }
    EXPECT_EQ(packed.theta, joined.theta);
  }
}

}  // namespace
}  // namespace lasp::kernels
