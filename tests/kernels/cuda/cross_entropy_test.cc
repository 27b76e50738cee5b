#include "kernels/cuda/cross_entropy.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "kernels/reference/operations.h"
#include "tests/kernels/cuda/bf16_values.h"
#include "tests/support/device_array.h"
#include "tests/support/gpu.h"

namespace lasp::kernels::cuda {
namespace {

using lasp::testing::DeviceArray;

class CrossEntropyCuda : public lasp::testing::GpuTest {};

// Vocabularies of clusters of one, two, four and eight blocks, and of the slow kernel.
constexpr int64_t kVocabularies[] = {2,     3,     64,    65,    256,    1000,   32768,
                                     32776, 50257, 64000, 65544, 128256, 250000, 262152};

void CheckChunkByChunkInPlace(std::span<const int64_t> vocabularies) {
  for (const int64_t vocabulary : vocabularies) {
    const std::vector<int32_t> labels = {0, kIgnoredLabel, static_cast<int32_t>(vocabulary - 1), 1,
                                         0};
    const auto rows = static_cast<int64_t>(labels.size());
    const std::vector<double> logits = RandomBf16(rows * vocabulary, 1, 4.0);
    const reference::CrossEntropyResult expected =
        reference::CrossEntropy(vocabulary, logits, labels);
    std::vector<double> expected_gradient = expected.gradient;
    for (double& value : expected_gradient) {
      value *= 0.25;
    }
    const DeviceArray<Bf16> in_place(logits);
    const DeviceArray<int32_t> labels_d(labels);
    const DeviceArray<double> loss(std::vector<double>{10});
    const DeviceArray<char> workspace(CrossEntropyWorkspaceBytes(rows));
    for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 2}, {2, rows}}) {
      Bf16* const chunk = in_place.data() + begin * vocabulary;
      ASSERT_EQ(CrossEntropy({.rows = end - begin,
                              .vocabulary = vocabulary,
                              .logits = chunk,
                              .logits_stride = vocabulary,
                              .labels = labels_d.data() + begin,
                              .gradient_scale = 0.25,
                              .gradient = chunk,
                              .gradient_stride = vocabulary,
                              .loss_sum = loss.data()},
                             workspace.data(), nullptr),
                cudaSuccess);
    }
    EXPECT_NEAR(loss.Values()[0] - 10, expected.loss_sum, 1e-6 * expected.loss_sum) << vocabulary;
    EXPECT_LE(RelativeRms(in_place.Values(), expected_gradient), kBf16Tolerance) << vocabulary;
  }
}

TEST_F(CrossEntropyCuda, ChunkByChunkInPlace) { CheckChunkByChunkInPlace(kVocabularies); }

// What compute-sanitizer is run on: a block, two blocks, the slow kernel.
TEST_F(CrossEntropyCuda, SmallShapes) {
  constexpr int64_t kSmall[] = {65, 256, 32776};
  CheckChunkByChunkInPlace(kSmall);
}

TEST_F(CrossEntropyCuda, LossAloneLeavesTheLogits) {
  const std::vector<double> logits = RandomBf16(int64_t{3} * 64000, 1, 4.0);
  const std::vector<int32_t> labels = {7, 63999, 32000};
  const DeviceArray<Bf16> logits_d(logits);
  const DeviceArray<int32_t> labels_d(labels);
  const DeviceArray<double> loss(std::vector<double>{0});
  const DeviceArray<char> workspace(CrossEntropyWorkspaceBytes(3));
  ASSERT_EQ(CrossEntropy({.rows = 3,
                          .vocabulary = 64000,
                          .logits = logits_d.data(),
                          .logits_stride = 64000,
                          .labels = labels_d.data(),
                          .loss_sum = loss.data()},
                         workspace.data(), nullptr),
            cudaSuccess);
  const double expected = reference::CrossEntropy(64000, logits, labels).loss_sum;
  EXPECT_NEAR(loss.Values()[0], expected, 1e-6 * expected);
  EXPECT_EQ(logits_d.Values(), logits);
}

double LossOf(const std::vector<double>& logits) {
  const DeviceArray<Bf16> logits_d(logits);
  const DeviceArray<int32_t> label(std::vector<int32_t>{1});
  const DeviceArray<double> loss(std::vector<double>{0});
  const DeviceArray<char> workspace(CrossEntropyWorkspaceBytes(1));
  const auto vocabulary = static_cast<int64_t>(logits.size());
  EXPECT_EQ(CrossEntropy({.rows = 1,
                          .vocabulary = vocabulary,
                          .logits = logits_d.data(),
                          .logits_stride = vocabulary,
                          .labels = label.data(),
                          .loss_sum = loss.data()},
                         workspace.data(), nullptr),
            cudaSuccess);
  return loss.Values()[0];
}

TEST_F(CrossEntropyCuda, ExtremeLogits) {
  for (const size_t vocabulary : {3U, 64U}) {
    std::vector<double> logits(vocabulary, -30000);
    logits[0] = 30000;
    EXPECT_NEAR(LossOf(logits), 60000, 200);  // 30000 is 29952 in bf16
    logits[0] = -30000;
    logits[1] = 30000;
    EXPECT_NEAR(LossOf(logits), 0, 1e-6);
    for (const double bad :
         {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
      for (const size_t at : {size_t{0}, vocabulary - 1}) {
        logits.assign(vocabulary, 1);
        logits[at] = bad;
        EXPECT_FALSE(std::isfinite(LossOf(logits))) << bad << " at " << at;
      }
    }
  }
}

}  // namespace
}  // namespace lasp::kernels::cuda
