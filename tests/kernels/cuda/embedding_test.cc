#include "kernels/cuda/embedding.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/token_sort.h"
#include "tests/kernels/cuda/bf16_values.h"
#include "tests/support/device_array.h"
#include "tests/support/gpu.h"

namespace lasp::kernels::cuda {
namespace {

using lasp::testing::DeviceArray;

class EmbeddingCuda : public lasp::testing::GpuTest {};

// Ids with few, many and only equal ones, and runs that cross the pieces of the sum.
std::vector<int32_t> RandomIds(int64_t tokens, int64_t vocabulary, uint32_t seed) {
  std::mt19937 generator(seed);
  std::uniform_int_distribution<int32_t> any(0, static_cast<int32_t>(vocabulary) - 1);
  std::vector<int32_t> ids(static_cast<size_t>(tokens));
  for (int32_t& id : ids) {
    id = generator() % 4 == 0 ? static_cast<int32_t>(vocabulary) / 2 : any(generator);
  }
  return ids;
}

struct Case {
  int64_t tokens;
  int64_t vocabulary;
  int64_t hidden_size;
};

constexpr Case kCases[] = {{1, 1, 8},       {63, 5, 7},        {64, 256, 64},
                           {65, 257, 100},  {1000, 2, 2048},   {4099, 64000, 520},
                           {5000, 1, 2048}, {3000, 70000, 33}, {2048, 100000, 8}};

TEST_F(EmbeddingCuda, TokenSortIsStable) {
  for (const Case& c : kCases) {
    const std::vector<int32_t> ids = RandomIds(c.tokens, c.vocabulary, 1);
    std::vector<int32_t> expected(ids.size());
    for (size_t i = 0; i < ids.size(); ++i) {
      expected[i] = static_cast<int32_t>(i);
    }
    std::ranges::sort(expected, {}, [&](int32_t position) {
      return std::pair(ids[static_cast<size_t>(position)], position);
    });
    const DeviceArray<int32_t> ids_d(ids);
    const DeviceArray<char> workspace(TokenSortWorkspaceBytes(c.tokens));
    const int32_t* order = nullptr;
    ASSERT_EQ(TokenSort(c.tokens, c.vocabulary, ids_d.data(), workspace.data(), &order, nullptr),
              cudaSuccess);
    std::vector<int32_t> actual(ids.size());
    ASSERT_EQ(
        cudaMemcpy(actual.data(), order, actual.size() * sizeof(int32_t), cudaMemcpyDeviceToHost),
        cudaSuccess);
    EXPECT_EQ(actual, expected) << c.tokens << " of " << c.vocabulary;
    EXPECT_EQ(workspace.Download().size(), static_cast<size_t>(workspace.count()));
  }
}

void CheckForwardAndBackward(std::span<const Case> cases) {
  for (const Case& c : cases) {
    const std::string what = std::to_string(c.tokens) + " of " + std::to_string(c.vocabulary);
    const std::vector<int32_t> ids = RandomIds(c.tokens, c.vocabulary, 1);
    const std::vector<double> table = RandomBf16(c.vocabulary * c.hidden_size, 2);
    const std::vector<double> gradient = RandomBf16(c.tokens * c.hidden_size, 3);
    std::vector<double> expected(gradient.size());
    std::vector<double> expected_gradient = RandomBf16(c.vocabulary * c.hidden_size, 4);
    const DeviceArray<float> table_gradient(expected_gradient);
    const auto width = static_cast<size_t>(c.hidden_size);
    for (size_t n = 0; n < ids.size(); ++n) {
      for (size_t i = 0; i < width; ++i) {
        const size_t row = static_cast<size_t>(ids[n]) * width + i;
        expected[n * width + i] = 3 * table[row];
        expected_gradient[row] += 3 * gradient[n * width + i];
      }
    }
    const DeviceArray<int32_t> ids_d(ids);
    const DeviceArray<Bf16> table_d(table);
    const DeviceArray<Bf16> gradient_d(gradient);
    const DeviceArray<Bf16> output(c.tokens * c.hidden_size);
    const DeviceArray<char> workspace(EmbeddingBackwardWorkspaceBytes(c.tokens, c.hidden_size));
    ASSERT_EQ(
        EmbeddingForward({c.tokens, c.hidden_size, 3, ids_d.data(), table_d.data(), output.data()},
                         nullptr),
        cudaSuccess);
    ASSERT_EQ(EmbeddingBackward({c.tokens, c.hidden_size, 3, ids_d.data(), gradient_d.data(),
                                 table_gradient.data()},
                                c.vocabulary, workspace.data(), nullptr),
              cudaSuccess);
    EXPECT_EQ(output.Values(), RoundedToBf16(expected)) << what;
    EXPECT_LE(RelativeRms(table_gradient.Values(), expected_gradient), kFp32Tolerance) << what;
    EXPECT_EQ(workspace.Download().size(), static_cast<size_t>(workspace.count()));
  }
}

TEST_F(EmbeddingCuda, ForwardAndBackwardAgainstPlainLoops) { CheckForwardAndBackward(kCases); }

// What compute-sanitizer is run on.
TEST_F(EmbeddingCuda, SmallShapes) {
  constexpr Case kSmall[] = {{63, 5, 7}, {65, 257, 100}, {200, 3, 64}};
  CheckForwardAndBackward(kSmall);
}

TEST_F(EmbeddingCuda, GradientIsTheSameBitsEveryTime) {
  const Case c = {20000, 300, 512};
  const DeviceArray<int32_t> ids(RandomIds(c.tokens, c.vocabulary, 1));
  const DeviceArray<Bf16> gradient(RandomBf16(c.tokens * c.hidden_size, 2));
  const DeviceArray<char> workspace(EmbeddingBackwardWorkspaceBytes(c.tokens, c.hidden_size));
  std::vector<float> first;
  for (int run = 0; run < 3; ++run) {
    const DeviceArray<float> table_gradient(
        std::vector<float>(static_cast<size_t>(c.vocabulary * c.hidden_size)));
    ASSERT_EQ(EmbeddingBackward(
                  {c.tokens, c.hidden_size, 1, ids.data(), gradient.data(), table_gradient.data()},
                  c.vocabulary, workspace.data(), nullptr),
              cudaSuccess);
    const std::vector<float> values = table_gradient.Download();
    if (run == 0) {
      first = values;
    }
    EXPECT_EQ(values, first);
  }
}

}  // namespace
}  // namespace lasp::kernels::cuda
