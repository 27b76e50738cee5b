// Softmax attention and rotary positions against plain fp64 loops; the loops' gradients against
// finite differences.
#include "kernels/reference/softmax_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/rotary_positions.h"
#include "kernels/softmax_attention.h"
#include "kernels/threads.h"
#include "tests/kernels/operation_test.h"
#include "tests/kernels/random_values.h"

namespace lasp::kernels {
namespace {

struct Case {
  int64_t queries;
  int64_t keys;
  int64_t offset;
  int64_t heads = 4;
  int64_t kv_heads = 2;
  int64_t size = 16;
};

// Around the borders of tiles, one token, slices before and behind, groups of all widths.
constexpr Case kCases[] = {
    {1, 1, 0},
    {63, 63, 0},
    {64, 64, 0},
    {65, 65, 0},
    {130, 130, 0, 3, 3, 5},
    {70, 70, 0, 4, 1, 24},
    {1, 200, 199},
    {40, 168, 128},
    {65, 130, 65},
    {65, 200, 65},  // the last keys are of nobody
    {10, 130, 0},   // nor are whole tiles of these
    {66, 67, 5, 2, 2, 1},
    {64, 64, 63, 2, 1, 64},       // all see all
    {64, 64, 1000000, 2, 1, 64},  // likewise, from far away
};

std::string Describe(const Case& c) {
  return std::to_string(c.queries) + " queries, " + std::to_string(c.keys) + " keys, offset " +
         std::to_string(c.offset) + ", heads " + std::to_string(c.heads) + "/" +
         std::to_string(c.kv_heads) + " of " + std::to_string(c.size);
}

template <typename T>
reference::SoftmaxAttention Problem(const Case& c) {
  constexpr int64_t kBatch = 2;
  return {.batch = kBatch,
          .queries = c.queries,
          .keys = c.keys,
          .heads = c.heads,
          .kv_heads = c.kv_heads,
          .size = c.size,
          .offset = c.offset,
          .q = RandomValues<T>(kBatch * c.queries * c.heads * c.size, 1, 2.0),
          .k = RandomValues<T>(kBatch * c.keys * c.kv_heads * c.size, 2, 2.0),
          .v = RandomValues<T>(kBatch * c.keys * c.kv_heads * c.size, 3)};
}

// The kernel's tensors of a problem.
template <typename T>
struct Tensors {
  explicit Tensors(const reference::SoftmaxAttention& x)
      : problem(x),
        q(Converted<T>(x.q)),
        k(Converted<T>(x.k)),
        v(Converted<T>(x.v)),
        output(q.size(), T{7}),
        log_sums(static_cast<size_t>(x.batch * x.heads * x.queries), T{7}),
        q_gradient(q.size(), T{7}),
        k_gradient(k.size(), T{7}),
        v_gradient(v.size(), T{7}) {
    words = (x.offset + x.queries + 63) / 64;
    marks.resize(static_cast<size_t>(x.starts.empty() ? 0 : x.batch * words));
    for (size_t batch = 0; batch < x.starts.size(); ++batch) {
      for (const int64_t token : x.starts[batch]) {
        marks[batch * static_cast<size_t>(words) + static_cast<size_t>(token / 64)] |=
            uint64_t{1} << (token % 64);
      }
    }
  }

  // Of keys from `first` on.
  SoftmaxDocuments Documents(int64_t first) const {
    return {.marks = marks.empty() ? nullptr : marks.data(), .words = words, .first_key = first};
  }

  HeadsView<T> Queries(std::vector<T>& values) const {
    const int64_t width = problem.heads * problem.size;
    return {values.data(), problem.queries * width, width, problem.size};
  }

  // From key `first` on.
  HeadsView<T> Keys(std::vector<T>& values, int64_t first) const {
    const int64_t width = problem.kv_heads * problem.size;
    return {values.data() + first * width, problem.keys * width, width, problem.size};
  }

  // Against keys [first, first + count) of all.
  SoftmaxAttentionShape Shape(int64_t first, int64_t count) const {
    return {.batch = problem.batch,
            .queries = problem.queries,
            .keys = count,
            .heads = problem.heads,
            .kv_heads = problem.kv_heads,
            .head_size = problem.size,
            .offset = problem.offset - first};
  }

  void Forward(int64_t first, int64_t count, bool merges) {
    cpu::SoftmaxAttentionOutput<T>({.shape = Shape(first, count),
                                    .q = Queries(q),
                                    .k = Keys(k, first),
                                    .v = Keys(v, first),
                                    .merges = merges,
                                    .output = Queries(output),
                                    .log_sums = log_sums.data(),
                                    .documents = Documents(first)});
  }

  void Backward(int64_t first, int64_t count, bool adds, std::vector<T>& output_gradient,
                bool adds_to_keys = false) {
    cpu::SoftmaxAttentionGradients<T>({.shape = Shape(first, count),
                                       .q = Queries(q),
                                       .k = Keys(k, first),
                                       .v = Keys(v, first),
                                       .output = Queries(output),
                                       .log_sums = log_sums.data(),
                                       .output_gradient = Queries(output_gradient),
                                       .adds = adds,
                                       .q_gradient = Queries(q_gradient),
                                       .adds_to_keys = adds_to_keys,
                                       .k_gradient = Keys(k_gradient, first),
                                       .v_gradient = Keys(v_gradient, first),
                                       .documents = Documents(first)});
  }

  reference::SoftmaxAttention problem;
  std::vector<T> q, k, v, output, log_sums, q_gradient, k_gradient, v_gradient;
  int64_t words = 0;
  std::vector<uint64_t> marks;
};

template <typename T>
void ExpectAll(const Tensors<T>& actual, const reference::SoftmaxAttentionResult& result,
               const reference::SoftmaxAttentionGradients& gradients) {
  EXPECT_LE(RelativeRms(actual.output, result.output), Tolerance<T>());
  for (size_t i = 0; i < actual.log_sums.size(); ++i) {
    EXPECT_NEAR(actual.log_sums[i], result.log_sums[i],
                Tolerance<T>() * (1 + std::abs(result.log_sums[i])));
  }
  // With one key the weight is 1 whatever the score: what is left of ds is rounding.
  if (actual.problem.keys > 1) {
    EXPECT_LE(RelativeRms(actual.q_gradient, gradients.q), Tolerance<T>());
    EXPECT_LE(RelativeRms(actual.k_gradient, gradients.k), Tolerance<T>());
  } else {
    for (const T value : actual.q_gradient) {
      EXPECT_NEAR(value, 0, Tolerance<T>());
    }
  }
  EXPECT_LE(RelativeRms(actual.v_gradient, gradients.v), Tolerance<T>());
}

template <typename T>
using SoftmaxAttentionTest = OperationTest<T>;
TYPED_TEST_SUITE(SoftmaxAttentionTest, OperationTypes);

TYPED_TEST(SoftmaxAttentionTest, IsThatOfTheFormulas) {
  using T = TypeParam;
  for (const Case& c : kCases) {
    SCOPED_TRACE(Describe(c));
    const reference::SoftmaxAttention x = Problem<T>(c);
    const std::vector<double> d_o = RandomValues<T>(static_cast<int64_t>(x.q.size()), 4);
    std::vector<T> output_gradient = Converted<T>(d_o);
    Tensors<T> tensors(x);
    tensors.Forward(0, c.keys, false);
    tensors.Backward(0, c.keys, false, output_gradient);
    reference::SoftmaxAttentionGradients gradients = reference::SoftmaxAttentionBackward(x, d_o);
    ExpectAll(tensors, reference::SoftmaxAttentionForward(x), gradients);
    // As where other queries see the same keys.
    tensors.Backward(0, c.keys, true, output_gradient, /*adds_to_keys=*/true);
    for (std::vector<double>* const twice : {&gradients.q, &gradients.k, &gradients.v}) {
      std::for_each(twice->begin(), twice->end(), [](double& value) { value *= 2; });
    }
    ExpectAll(tensors, reference::SoftmaxAttentionForward(x), gradients);
  }
}

// As a ring brings them: the queries' own first, then those from farther and farther before.
TYPED_TEST(SoftmaxAttentionTest, SlicesOfKeysMergeIntoTheWhole) {
  using T = TypeParam;
  for (const int64_t slice : {1, 37, 64, 65}) {
    constexpr int64_t kSlices = 3;
    const Case c{.queries = slice, .keys = kSlices * slice, .offset = (kSlices - 1) * slice};
    SCOPED_TRACE(Describe(c));
    const reference::SoftmaxAttention x = Problem<T>(c);
    const std::vector<double> d_o = RandomValues<T>(static_cast<int64_t>(x.q.size()), 4);
    std::vector<T> output_gradient = Converted<T>(d_o);
    Tensors<T> tensors(x);
    for (int64_t visitor = kSlices - 1; visitor >= 0; --visitor) {
      tensors.Forward(visitor * slice, slice, visitor < kSlices - 1);
    }
    for (int64_t visitor = kSlices - 1; visitor >= 0; --visitor) {
      tensors.Backward(visitor * slice, slice, visitor < kSlices - 1, output_gradient);
    }
    ExpectAll(tensors, reference::SoftmaxAttentionForward(x),
              reference::SoftmaxAttentionBackward(x, d_o));
  }
}

// Of two sequences: documents that end at tiles' borders, one before and one behind; of one token
// each; and one that all queries are of.
std::vector<std::vector<std::vector<int64_t>>> DocumentStarts(int64_t tokens) {
  std::vector<int64_t> every(static_cast<size_t>(tokens));
  std::iota(every.begin(), every.end(), 0);
  std::vector<std::vector<std::vector<int64_t>>> all = {
      {{63, 64, 65, 129}, {1, 40}}, {every, {}}, {{tokens / 2}, {tokens - 1}}, {{}, {0}}};
  for (auto& starts : all) {
    for (std::vector<int64_t>& of : starts) {
      of.erase(std::remove_if(of.begin(), of.end(), [&](int64_t at) { return at >= tokens; }),
               of.end());
    }
  }
  return all;
}

TYPED_TEST(SoftmaxAttentionTest, DocumentsAreApart) {
  using T = TypeParam;
  for (const Case& c : {Case{1, 1, 0}, Case{63, 63, 0}, Case{64, 64, 0}, Case{65, 65, 0},
                        Case{130, 130, 0, 3, 3, 5}, Case{200, 200, 0, 4, 1, 24}, Case{40, 168, 128},
                        Case{65, 200, 65}}) {
    for (const auto& starts : DocumentStarts(c.offset + c.queries)) {
      SCOPED_TRACE(Describe(c) + ", " + std::to_string(starts[0].size()) + " starts");
      reference::SoftmaxAttention x = Problem<T>(c);
      x.starts = starts;
      const std::vector<double> d_o = RandomValues<T>(static_cast<int64_t>(x.q.size()), 4);
      std::vector<T> output_gradient = Converted<T>(d_o);
      Tensors<T> tensors(x);
      tensors.Forward(0, c.keys, false);
      tensors.Backward(0, c.keys, false, output_gradient);
      ExpectAll(tensors, reference::SoftmaxAttentionForward(x),
                reference::SoftmaxAttentionBackward(x, d_o));
    }
  }
}

// Slices of keys of which some queries see none merge too.
TYPED_TEST(SoftmaxAttentionTest, SlicesWithDocumentsMergeIntoTheWhole) {
  using T = TypeParam;
  for (const int64_t slice : {1, 37, 64, 65}) {
    constexpr int64_t kSlices = 3;
    const Case c{.queries = slice, .keys = kSlices * slice, .offset = (kSlices - 1) * slice};
    for (const auto& starts : DocumentStarts(kSlices * slice)) {
      SCOPED_TRACE(Describe(c) + ", " + std::to_string(starts[0].size()) + " starts");
      reference::SoftmaxAttention x = Problem<T>(c);
      x.starts = starts;
      const std::vector<double> d_o = RandomValues<T>(static_cast<int64_t>(x.q.size()), 4);
      std::vector<T> output_gradient = Converted<T>(d_o);
      Tensors<T> tensors(x);
      for (int64_t visitor = kSlices - 1; visitor >= 0; --visitor) {
        tensors.Forward(visitor * slice, slice, visitor < kSlices - 1);
      }
      for (int64_t visitor = kSlices - 1; visitor >= 0; --visitor) {
        tensors.Backward(visitor * slice, slice, visitor < kSlices - 1, output_gradient);
      }
      ExpectAll(tensors, reference::SoftmaxAttentionForward(x),
                reference::SoftmaxAttentionBackward(x, d_o));
    }
  }
}

TYPED_TEST(SoftmaxAttentionTest, LargeScoresOverflowNothing) {
  using T = TypeParam;
  const Case c{.queries = 130, .keys = 130, .offset = 0};
  reference::SoftmaxAttention x = Problem<T>(c);
  // Scores of some thousands: all weight lies on one key.
  for (double& value : x.q) {
    value *= 1024;
  }
  Tensors<T> tensors(x);
  tensors.Forward(0, c.keys, false);
  EXPECT_LE(RelativeRms(tensors.output, reference::SoftmaxAttentionForward(x).output), 1e-3);
}

TYPED_TEST(SoftmaxAttentionTest, AnyNumberOfThreadsGivesTheSameBits) {
  using T = TypeParam;
  const Case c{.queries = 200, .keys = 333, .offset = 133};
  const reference::SoftmaxAttention x = Problem<T>(c);
  std::vector<T> output_gradient =
      Converted<T>(RandomValues<T>(static_cast<int64_t>(x.q.size()), 4));
  const auto run = [&](int threads) {
    cpu::SetThreads(threads);
    Tensors<T> tensors(x);
    tensors.Forward(0, c.keys, false);
    tensors.Backward(0, c.keys, false, output_gradient);
    return tensors;
  };
  const Tensors<T> one = run(1);
  for (const int threads : {2, 3}) {
    const Tensors<T> more = run(threads);
    EXPECT_EQ(more.output, one.output);
    EXPECT_EQ(more.q_gradient, one.q_gradient);
    EXPECT_EQ(more.k_gradient, one.k_gradient);
    EXPECT_EQ(more.v_gradient, one.v_gradient);
  }
}

TEST(SoftmaxAttentionOracleTest, GradientsAreFiniteDifferences) {
  const reference::SoftmaxAttention x = Problem<double>({.queries = 5, .keys = 9, .offset = 3});
  const std::vector<double> d_o = RandomValues<double>(static_cast<int64_t>(x.q.size()), 4);
  const reference::SoftmaxAttentionGradients gradients =
      reference::SoftmaxAttentionBackward(x, d_o);
  const auto objective = [&](const reference::SoftmaxAttention& at) {
    const std::vector<double> output = reference::SoftmaxAttentionForward(at).output;
    double sum = 0;
    for (size_t i = 0; i < output.size(); ++i) {
      sum += output[i] * d_o[i];
    }
    return sum;
  };
  const auto check = [&](std::vector<double> reference::SoftmaxAttention::* input,
                         const std::vector<double>& gradient) {
    std::vector<double> differences;
    for (size_t i = 0; i < gradient.size(); ++i) {
      constexpr double kStep = 1e-5;
      reference::SoftmaxAttention above = x;
      reference::SoftmaxAttention below = x;
      (above.*input)[i] += kStep;
      (below.*input)[i] -= kStep;
      differences.push_back((objective(above) - objective(below)) / (2 * kStep));
    }
    EXPECT_LE(RelativeRms(differences, gradient), 1e-8);
  };
  check(&reference::SoftmaxAttention::q, gradients.q);
  check(&reference::SoftmaxAttention::k, gradients.k);
  check(&reference::SoftmaxAttention::v, gradients.v);
}

constexpr int64_t kSequences = 2;
constexpr int64_t kHeads = 3;

// Columns of wider rows, as those of a projection are.
template <typename T>
std::vector<T> Turned(std::vector<T> x, int64_t tokens, int64_t size, int64_t first, bool inverse,
                      double base = 10000) {
  const int64_t width = kHeads * size;
  const int64_t stride = width + 5;
  std::vector<T> wide(static_cast<size_t>(kSequences * tokens * stride), T{3});
  for (int64_t row = 0; row < kSequences * tokens; ++row) {
    std::copy_n(x.begin() + row * width, width, wide.begin() + row * stride);
  }
  cpu::TurnByPositions<T>({.sequences = kSequences,
                           .tokens = tokens,
                           .heads = kHeads,
                           .head_size = size,
                           .first_position = first,
                           .base = base,
                           .inverse = inverse,
                           .x = wide.data(),
                           .token_stride = stride});
  for (int64_t row = 0; row < kSequences * tokens; ++row) {
    std::copy_n(wide.begin() + row * stride, width, x.begin() + row * width);
    EXPECT_TRUE(std::all_of(wide.begin() + row * stride + width, wide.begin() + (row + 1) * stride,
                            [](T value) { return value == T{3}; }));
  }
  return x;
}

template <typename T>
using RotaryPositionsTest = OperationTest<T>;
TYPED_TEST_SUITE(RotaryPositionsTest, OperationTypes);

TYPED_TEST(RotaryPositionsTest, TurnPairsByGlobalPositionsHoweverFarOut) {
  using T = TypeParam;
  constexpr int64_t kTokens = 67;
  for (const int64_t size : {2, 6, 64}) {
    for (const int64_t first : {int64_t{0}, int64_t{63}, int64_t{1} << 26}) {
      for (const double base : {10000.0, 500000.0, 1.5}) {
        const std::vector<double> x = RandomValues<T>(kSequences * kTokens * kHeads * size, 1);
        const std::vector<double> want = reference::Rotated(x, kTokens, kHeads, size, first, base);
        // Angles of 2^26 are themselves good to 1e-8.
        EXPECT_LE(RelativeRms(Turned(Converted<T>(x), kTokens, size, first, false, base), want),
                  first > 1000 ? std::max(this->kTolerance, 1e-8) : this->kTolerance);
      }
    }
  }
}

TYPED_TEST(RotaryPositionsTest, TheInverseTurnsBack) {
  using T = TypeParam;
  const std::vector<double> x = RandomValues<T>(kSequences * 100 * kHeads * 32, 1);
  const std::vector<T> turned = Turned(Converted<T>(x), 100, 32, 12345, false);
  EXPECT_GT(RelativeRms(turned, x), 0.1);
  EXPECT_LE(RelativeRms(Turned(turned, 100, 32, 12345, true), x), this->kTolerance);
}

TYPED_TEST(RotaryPositionsTest, APositionIsTheSameBitsInEverySlice) {
  using T = TypeParam;
  constexpr int64_t kTokens = 90;
  constexpr int64_t kSize = 8;
  constexpr int64_t kWidth = kHeads * kSize;
  const std::vector<T> x = Converted<T>(RandomValues<T>(kSequences * kTokens * kWidth, 1));
  const std::vector<T> whole = Turned(x, kTokens, kSize, 1000, false);
  for (const int64_t slice : {1, 30, 45}) {
    for (int64_t begin = 0; begin < kTokens; begin += slice) {
      std::vector<T> part;
      for (int64_t sequence = 0; sequence < kSequences; ++sequence) {
        const auto from = x.begin() + (sequence * kTokens + begin) * kWidth;
        part.insert(part.end(), from, from + slice * kWidth);
      }
      part = Turned(part, slice, kSize, 1000 + begin, false);
      for (int64_t sequence = 0; sequence < kSequences; ++sequence) {
        const auto at = part.begin() + sequence * slice * kWidth;
        EXPECT_TRUE(std::equal(at, at + slice * kWidth,
                               whole.begin() + (sequence * kTokens + begin) * kWidth));
      }
    }
  }
}

}  // namespace
}  // namespace lasp::kernels
