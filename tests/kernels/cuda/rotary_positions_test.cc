// Rotary positions on the GPU against the CPU's in fp64 from the same inputs.
#include "kernels/cuda/rotary_positions.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "tests/kernels/cuda/bf16_values.h"
#include "tests/support/device_array.h"
#include "tests/support/gpu.h"

namespace lasp::kernels::cuda {
namespace {

using lasp::testing::DeviceArray;

constexpr int64_t kSequences = 2;
constexpr int64_t kHeads = 3;

class RotaryPositionsCuda : public lasp::testing::GpuTest {};

struct Case {
  int64_t tokens;
  int64_t size;
  int64_t first_position = 0;
  bool inverse = false;
  int64_t gap = 0;  // elements between two tokens' heads
};

void ExpectTheCpus(const Case& c) {
  SCOPED_TRACE(::testing::Message() << c.tokens << " tokens from " << c.first_position
                                    << ", heads of " << c.size << ", " << c.gap << " apart");
  const int64_t stride = kHeads * c.size + c.gap;
  std::vector<double> x = RandomBf16(kSequences * c.tokens * stride, 1);
  const DeviceArray<Bf16> x_d(x);
  ASSERT_EQ(TurnByPositions({kSequences, c.tokens, kHeads, c.size, c.first_position, 10000,
                             c.inverse, x_d.data(), stride},
                            nullptr),
            cudaSuccess);
  cpu::TurnByPositions<double>(
      {kSequences, c.tokens, kHeads, c.size, c.first_position, 10000, c.inverse, x.data(), stride});
  EXPECT_LE(RelativeRms(x_d.Values(), x), kBf16Tolerance);
}

TEST_F(RotaryPositionsCuda, SmallShapes) {
  for (const int64_t tokens : {1, 15, 16, 17, 100}) {
    for (const int64_t size : {2, 8, 32, 64, 72, 128}) {
      ExpectTheCpus({.tokens = tokens, .size = size});
    }
  }
  ExpectTheCpus({.tokens = 50, .size = 64, .gap = 8});
  ExpectTheCpus({.tokens = 50, .size = 64, .gap = 3});
}

TEST_F(RotaryPositionsCuda, AreTheCpusHoweverFarOutAndBack) {
  for (const int64_t first : {int64_t{63}, int64_t{1} << 26}) {
    for (const bool inverse : {false, true}) {
      ExpectTheCpus({.tokens = 130, .size = 128, .first_position = first, .inverse = inverse});
    }
  }
}

// What a position turns by is the same bits in whatever slice.
TEST_F(RotaryPositionsCuda, ASliceIsTheBitsOfTheWhole) {
  constexpr int64_t kTokens = 90;
  constexpr int64_t kSize = 64;
  constexpr int64_t kRow = kHeads * kSize;
  const std::vector<double> x = RandomBf16(kTokens * kRow, 1);
  const DeviceArray<Bf16> whole(x);
  const DeviceArray<Bf16> slices(x);
  ASSERT_EQ(
      TurnByPositions({1, kTokens, kHeads, kSize, 1000, 10000, false, whole.data(), kRow}, nullptr),
      cudaSuccess);
  for (const int64_t first : {0, 7, 37}) {
    const int64_t tokens = first == 0 ? 7 : first == 7 ? 30 : kTokens - 37;
    ASSERT_EQ(TurnByPositions({1, tokens, kHeads, kSize, 1000 + first, 10000, false,
                               slices.data() + first * kRow, kRow},
                              nullptr),
              cudaSuccess);
  }
  EXPECT_EQ(slices.Values(), whole.Values());
}

}  // namespace
}  // namespace lasp::kernels::cuda
