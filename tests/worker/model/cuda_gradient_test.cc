// The whole model on a GPU in bf16 against the same on the CPU in fp64: its loss and every tensor
// of its gradient.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <string>

#include "tests/support/gpu.h"
#include "tests/worker/device/bf16_cpu_backend.h"
#include "tests/worker/model/computed_gradients.h"
#include "worker/device/cuda_backend.h"

namespace lasp::worker {
namespace {

class CudaGradientTest : public lasp::testing::GpuTest {};

LocalRanksOptions OnGpu() {
  return {.create_backend = []() -> absl::StatusOr<std::unique_ptr<Backend>> {
    return CreateCudaBackend({});
  }};
}

TEST_F(CudaGradientTest, AgreesWithTheCpuInDoublePrecision) {
  const LocalRanksOptions cpu{.compute_type = DType::kFloat64};
  const LocalRanksOptions gpu = OnGpu();
  // The quick start's model, and one with heads of 128 and lengths that are no multiple of 64.
  const ModelConfig quick_start = QuickStartModel();
  const ModelConfig wide{
      .layers = 3, .hidden_size = 256, .heads = 2, .glu_size = 704, .vocab_size = 1000};

  struct Case {
    ModelConfig config;
    MicroBatchShape shape;
    double tolerance;
  };

  for (const auto& [config, shape, tolerance] :
       {Case{quick_start, {.sequences = 2, .tokens = 512}, 2e-2},
        Case{wide, {.sequences = 2, .tokens = 300}, 2.5e-2}}) {
    const ComputedGradients expected = ComputeGradients(cpu, config, shape, false);
    const ComputedGradients actual = ComputeGradients(gpu, config, shape, false);
    const ComputedGradients rehearsed = ComputeGradients(gpu, config, shape, true);
    EXPECT_NEAR(actual.loss / expected.loss, 1, 1e-3);
    EXPECT_NEAR(rehearsed.loss / expected.loss, 1, 1e-3);
    const ParameterLayout layout(config);
    ASSERT_EQ(actual.gradients.size(), expected.gradients.size());
    for (const Parameter& parameter : layout.parameters()) {
      const double error = RelativeRms(actual.gradients, expected.gradients, parameter);
      EXPECT_LE(error, tolerance) << parameter.name;
      EXPECT_LE(RelativeRms(rehearsed.gradients, expected.gradients, parameter), tolerance)
          << parameter.name;
      RecordProperty(std::to_string(config.hidden_size) + "/" + parameter.name,
                     std::to_string(error));
    }
    // The same bits again.
    EXPECT_EQ(ComputeGradients(gpu, config, shape, false).gradients, actual.gradients);
  }
}

TEST_F(CudaGradientTest, AgreesWithTheCpuThatRoundsWhereTheGpuDoes) {
  // Sums in another order, 3e-7 apart, turn some roundings, and those turn more: a quarter of what
  // rounding does in all. Of random tokens, whose gradients cancel, that would be 5e-3 by itself.
  const MicroBatchShape shape{.sequences = 4, .tokens = 512};
  const ModelConfig config = QuickStartModel();
  const RandomSequences batch = TextSequences(shape);
  // Which rounds as kernels do that have a segment for each chunk of 64 tokens.
  AttentionShape attention;
  attention.batch = shape.sequences;
  attention.tokens = shape.tokens;
  attention.heads = config.heads;
  attention.head_size = config.head_size();
  ASSERT_EQ(CreateCudaBackend({}).value()->SavedStateCount(attention), 8);
  const ComputedGradients expected =
      ComputeGradients({.create_backend = []() -> absl::StatusOr<std::unique_ptr<Backend>> {
                         return CreateBf16CpuBackend(1);
                       }},
                       config, shape, batch);
  const ComputedGradients actual = ComputeGradients(OnGpu(), config, shape, batch);
  EXPECT_NEAR(actual.loss / expected.loss, 1, 1e-3);
  const ParameterLayout layout(config);
  double worst = 0;
  for (const Parameter& parameter : layout.parameters()) {
    const double error = RelativeRms(actual.gradients, expected.gradients, parameter);
    EXPECT_LE(error, 5e-3) << parameter.name;
    worst = std::max(worst, error);
  }
  std::printf("worst gradient tensor against the CPU that rounds: %.2e\n", worst);
}

}  // namespace
}  // namespace lasp::worker
