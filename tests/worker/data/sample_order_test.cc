#include "worker/data/sample_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <vector>

namespace lasp::worker {
namespace {

void ExpectBijection(int64_t size, uint64_t key) {
  const Permutation permutation(size, key);
  std::vector<bool> seen(static_cast<size_t>(size), false);
  for (int64_t i = 0; i < size; ++i) {
    const int64_t image = permutation(i);
    ASSERT_GE(image, 0) << size;
    ASSERT_LT(image, size) << size;
    ASSERT_FALSE(seen[static_cast<size_t>(image)]) << size;
    seen[static_cast<size_t>(image)] = true;
  }
}

TEST(PermutationTest, IsABijectionForEverySmallSize) {
  for (int64_t size = 1; size <= 1000; ++size) {
    ExpectBijection(size, 7);
  }
}

TEST(PermutationTest, IsABijectionForLargeSizesAroundPowersOfTwo) {
  for (const int64_t size : {(1 << 16) - 1, 1 << 16, (1 << 16) + 1, 99'991, (1 << 18) + 3}) {
    ExpectBijection(size, 1);
    ExpectBijection(size, ~uint64_t{0});
  }
}

TEST(PermutationTest, HugeDomainsAreReachedAtOnce) {
  const int64_t size = (int64_t{1} << 61) + 12'345;
  const Permutation permutation(size, 3);
  std::set<int64_t> images;
  for (int64_t i = 0; i < 1000; ++i) {
    const int64_t image = permutation(size - 1 - i);
    EXPECT_GE(image, 0);
    EXPECT_LT(image, size);
    images.insert(image);
  }
  EXPECT_EQ(images.size(), 1000u);
}

// Each image stands equally often in each eighth of the range, and neighbours are spread: the chi
// square of 8 x 8 cells, with 49 degrees of freedom, exceeds 100 once in 40,000 keys.
TEST(PermutationTest, LooksShuffled) {
  const int64_t size = 10'007;
  for (uint64_t key = 0; key < 20; ++key) {
    const Permutation permutation(size, key);
    std::vector<double> cells(64, 0);
    int64_t fixed_points = 0;
    int64_t kept_neighbours = 0;
    for (int64_t i = 0; i < size; ++i) {
      const int64_t image = permutation(i);
      ++cells[static_cast<size_t>(i * 8 / size * 8 + image * 8 / size)];
      fixed_points += image == i ? 1 : 0;
      kept_neighbours += i + 1 < size && permutation(i + 1) == image + 1 ? 1 : 0;
    }
    double chi_square = 0;
    const double expected = static_cast<double>(size) / 64;
    for (const double count : cells) {
      chi_square += (count - expected) * (count - expected) / expected;
    }
    EXPECT_LT(chi_square, 100) << key;
    EXPECT_LE(fixed_points, 10) << key;
    EXPECT_LE(kept_neighbours, 10) << key;
  }
}

TEST(SampleOrderTest, EveryPassHoldsEverySampleOnceInAnotherOrder) {
  for (const int64_t count : {1, 2, 3, 17, 256}) {
    const SampleOrder order(count, 5);
    std::vector<int64_t> all(static_cast<size_t>(count));
    std::iota(all.begin(), all.end(), 0);
    std::vector<std::vector<int64_t>> passes;
    passes.reserve(3);
    for (int64_t pass = 0; pass < 3; ++pass) {
      std::vector<int64_t> samples;
      samples.reserve(static_cast<size_t>(count));
      for (int64_t i = 0; i < count; ++i) {
        samples.push_back(order.SampleAt(pass * count + i));
      }
      passes.push_back(samples);
      std::sort(samples.begin(), samples.end());
      EXPECT_EQ(samples, all);
    }
    if (count > 16) {
      EXPECT_NE(passes[0], passes[1]);
      EXPECT_NE(passes[1], passes[2]);
    }
  }
}

TEST(SampleOrderTest, SeedsGiveOtherOrders) {
  const auto first = [](int64_t seed) {
    std::vector<int64_t> samples;
    samples.reserve(50);
    for (int64_t i = 0; i < 50; ++i) {
      samples.push_back(SampleOrder(1000, seed).SampleAt(i));
    }
    return samples;
  };
  EXPECT_EQ(first(1), first(1));
  EXPECT_NE(first(0), first(1));
  EXPECT_NE(first(1), first(2));
  EXPECT_NE(first(-1), first(1));
}

// A job's order must not change with a later release: a restart would then train on other data.
TEST(SampleOrderTest, TheOrderIsPartOfTheContract) {
  std::vector<int64_t> samples;
  samples.reserve(8);
  for (int64_t i = 0; i < 8; ++i) {
    samples.push_back(SampleOrder(100, 1).SampleAt(i));
  }
  EXPECT_EQ(samples, (std::vector<int64_t>{42, 31, 40, 7, 89, 68, 69, 17}));
}

TEST(SampleOrderTest, EveryShapePartitionsTheGlobalBatch) {
  const int64_t global_batch = 24;
  for (const int64_t dp_size : {1, 2, 3, 4, 6}) {
    for (const int64_t micro_batch : {1, 2, 4}) {
      if (global_batch % (dp_size * micro_batch) != 0) {
        continue;
      }
      for (const int64_t step : {1, 2, 1000}) {
        std::vector<int64_t> indices;
        indices.reserve(micro_batch);
        for (int64_t m = 0; m < global_batch / (dp_size * micro_batch); ++m) {
          for (int64_t d = 0; d < dp_size; ++d) {
            const int64_t first = FirstGlobalIndex(step, m, global_batch, micro_batch, d, dp_size);
            for (int64_t i = 0; i < micro_batch; ++i) {
              indices.push_back(first + i);
            }
          }
        }
        std::vector<int64_t> expected(static_cast<size_t>(global_batch));
        std::iota(expected.begin(), expected.end(), (step - 1) * global_batch);
        EXPECT_EQ(indices, expected);
      }
    }
  }
}

}  // namespace
}  // namespace lasp::worker
