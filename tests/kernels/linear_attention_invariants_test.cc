// What holds of linear attention whatever its numbers: where its rows may lie, how many threads
// work, what a token may see, and that long sequences do not drift.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/decay_slopes.h"
#include "kernels/linear_attention.h"
#include "kernels/lrpe.h"
#include "kernels/threads.h"
#include "tests/kernels/random_values.h"
#include "tests/kernels/ranks.h"

namespace lasp::kernels {
namespace {

reference::LinearAttention Problem(int64_t batch, int64_t tokens, int64_t heads, bool rotary) {
  reference::LinearAttention x;
  x.batch = batch;
  x.tokens = tokens;
  x.heads = heads;
  x.key_size = 24;
  x.value_size = 24;
  x.slopes.resize(static_cast<size_t>(heads));
  DecaySlopes(0, 2, heads, x.slopes.data());
  if (rotary) {
    x.theta.resize(static_cast<size_t>(heads * x.key_size));
    LrpeTheta(heads, x.key_size, x.theta.data());
  }
  x.q = RandomValues<float>(batch * tokens * heads * x.key_size, 1);
  x.k = RandomValues<float>(batch * tokens * heads * x.key_size, 2);
  x.v = RandomValues<float>(batch * tokens * heads * x.value_size, 3);
  return x;
}

void ExpectSameBits(const GroupResult<float>& a, const GroupResult<float>& b) {
  EXPECT_EQ(a.theta, b.theta);
  for (size_t r = 0; r < a.ranks.size(); ++r) {
    EXPECT_EQ(a.ranks[r].output, b.ranks[r].output);
    EXPECT_EQ(a.ranks[r].q, b.ranks[r].q);
    EXPECT_EQ(a.ranks[r].k, b.ranks[r].k);
    EXPECT_EQ(a.ranks[r].v, b.ranks[r].v);
  }
}

TEST(LinearAttentionInvariants, BitsDoNotDependOnThreadsOrRuns) {
  const reference::LinearAttention x = Problem(3, 300, 5, true);
  const std::vector<double> d_o = RandomValues<float>(static_cast<int64_t>(x.v.size()), 4);
  cpu::SetThreads(1);
  const GroupResult<float> one = RunRanks<float>(x, d_o, {130, 170});
  for (const int threads : {1, 2, 3, 4}) {
    cpu::SetThreads(threads);
    ExpectSameBits(RunRanks<float>(x, d_o, {130, 170}), one);
  }
  cpu::SetThreads(1);
}

TEST(LinearAttentionInvariants, PackedRowsGiveTheBitsOfSeparateOnes) {
  const reference::LinearAttention x = Problem(2, 150, 3, false);
  const int64_t width = x.heads * x.key_size;
  const auto rows = static_cast<size_t>(x.batch * x.tokens);
  std::vector<float> packed(rows * 4 * static_cast<size_t>(width), 55.0F);
  for (size_t n = 0; n < rows; ++n) {
    for (size_t c = 0; c < static_cast<size_t>(width); ++c) {
      const size_t from = n * static_cast<size_t>(width) + c;
      float* const row = packed.data() + n * 4 * static_cast<size_t>(width);
      row[c] = static_cast<float>(x.q[from]);
      row[static_cast<size_t>(width) + c] = static_cast<float>(x.k[from]);
      row[2 * static_cast<size_t>(width) + c] = static_cast<float>(x.v[from]);
    }
  }
  const LinearAttentionShape shape = {.batch = x.batch,
                                      .tokens = x.tokens,
                                      .heads = x.heads,
                                      .key_size = x.key_size,
                                      .value_size = x.value_size,
                                      .slopes = x.slopes.data()};
  const auto view = [&](std::vector<float>& data, int64_t part, int64_t parts) {
    return HeadsView<float>{data.data() + part * width, x.tokens * parts * width, parts * width,
                            x.key_size};
  };
  std::vector<float> state(static_cast<size_t>(StateElements(shape)));
  std::vector<float> block_states(static_cast<size_t>(BlockStateElements(shape)));
  std::vector<float> output(packed.size(), 55.0F);
  cpu::LocalState<float>(
      {shape, view(packed, 1, 4), view(packed, 2, 4), state.data(), block_states.data()});
  cpu::IntraOutput<float>({shape, view(packed, 0, 4), view(packed, 1, 4), view(packed, 2, 4),
                           block_states.data(), view(output, 1, 4)});
  const std::vector<double> d_o = RandomValues<float>(static_cast<int64_t>(x.v.size()), 4);
  const std::vector<float> expected = RunRanks<float>(x, d_o, {150}).ranks[0].output;
  const auto columns = static_cast<size_t>(width);
  for (size_t row = 0; row < rows; ++row) {
    for (size_t column = 0; column < 4 * columns; ++column) {
      const bool written = column >= columns && column < 2 * columns;
      ASSERT_EQ(output[row * 4 * columns + column],
                written ? expected[row * columns + column - columns] : 55.0F);
    }
  }
}

TEST(LinearAttentionInvariants, ATokenNeverSeesALaterOne) {
  reference::LinearAttention x = Problem(1, 200, 2, true);
  const std::vector<double> d_o = RandomValues<float>(static_cast<int64_t>(x.v.size()), 4);
  const GroupResult<float> before = RunRanks<float>(x, d_o, {110, 90});
  const int64_t token = 75;  // inside a block, on the first rank
  const int64_t row = x.heads * x.key_size;
  for (int64_t c = 0; c < row; ++c) {
    x.k[static_cast<size_t>(token * row + c)] = 1e6;
    x.v[static_cast<size_t>(token * row + c)] = -1e6;
  }
  const GroupResult<float> after = RunRanks<float>(x, d_o, {110, 90});
  for (int64_t i = 0; i < token * row; ++i) {
    ASSERT_EQ(before.ranks[0].output[static_cast<size_t>(i)],
              after.ranks[0].output[static_cast<size_t>(i)]);
  }
  EXPECT_NE(before.ranks[0].output[static_cast<size_t>(token * row)],
            after.ranks[0].output[static_cast<size_t>(token * row)]);
  EXPECT_NE(before.ranks[1].output[0], after.ranks[1].output[0]);
}

// The state after a million tokens that hardly decay. Decay factors, turns or sums that were
// rounded to fp32 on their own, once a block, would be off by 1e-4 here.
TEST(LinearAttentionInvariants, AMillionTokensDoNotDrift) {
  const double slope = 1e-9;
  for (const double theta : {0.0, 3e-7, 0.001}) {
    const LinearAttentionShape shape = {.batch = 1,
                                        .tokens = 1000003,
                                        .heads = 1,
                                        .key_size = 1,
                                        .value_size = 1,
                                        .slopes = &slope,
                                        .theta = theta > 0 ? &theta : nullptr};
    const std::vector<float> ones(static_cast<size_t>(shape.tokens), 1.0F);
    std::vector<float> values = Converted<float>(RandomValues<float>(shape.tokens, 1, 0.1));
    for (float& value : values) {
      value += 1.0F;
    }
    std::vector<float> state(2);
    cpu::LocalState<float>({shape,
                            {ones.data(), shape.tokens, 1, 1},
                            {values.data(), shape.tokens, 1, 1},
                            state.data(),
                            nullptr});
    double cosine = 0;
    double sine = 0;
    for (int64_t n = 0; n < shape.tokens; ++n) {
      const auto distance = static_cast<double>(shape.tokens - n);  // to the next token
      const double weight =
          std::exp(-slope * (distance - 1)) * static_cast<double>(values[static_cast<size_t>(n)]);
      cosine += weight * std::cos(theta * distance);
      sine -= weight * std::sin(theta * distance);
    }
    const double tolerance = 1e-5 * std::hypot(cosine, sine);
    EXPECT_NEAR(state[0], cosine, tolerance) << theta;
    EXPECT_NEAR(state[1], sine, tolerance) << theta;
  }
}

TEST(LinearAttentionInvariants, AnEmptySliceHasNoState) {
  const double slope = 0.5;
  const LinearAttentionShape shape = {
      .batch = 1, .tokens = 0, .heads = 1, .key_size = 2, .value_size = 2, .slopes = &slope};
  std::vector<float> state(4, 77.0F);
  cpu::LocalState<float>({shape, {}, {}, state.data(), nullptr});
  EXPECT_EQ(state, std::vector<float>(4));
}

}  // namespace
}  // namespace lasp::kernels
