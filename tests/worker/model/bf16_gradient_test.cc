// The whole model with bf16 between its operations against fp64: how far rounding alone takes it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

#include "tests/worker/device/bf16_cpu_backend.h"
#include "tests/worker/model/computed_gradients.h"

namespace lasp::worker {
namespace {

TEST(Bf16GradientTest, RoundingBetweenOperationsKeepsEveryGradientClose) {
  const MicroBatchShape shape{.sequences = 2, .tokens = 512};
  const ModelConfig config = QuickStartModel();
  const ComputedGradients exact =
      ComputeGradients({.compute_type = DType::kFloat64}, config, shape);
  const ComputedGradients rounded =
      ComputeGradients({.create_backend = []() -> absl::StatusOr<std::unique_ptr<Backend>> {
                         return CreateBf16CpuBackend(1);
                       }},
                       config, shape);
  EXPECT_NEAR(rounded.loss / exact.loss, 1, 1e-3);
  const ParameterLayout layout(config);
  ASSERT_EQ(rounded.gradients.size(), exact.gradients.size());
  double worst = 0;
  for (const Parameter& parameter : layout.parameters()) {
    const double error = RelativeRms(rounded.gradients, exact.gradients, parameter);
    EXPECT_LE(error, 2e-2) << parameter.name;
    // It does round.
    EXPECT_GE(error, 1e-4) << parameter.name;
    worst = std::max(worst, error);
  }
  std::printf("worst gradient tensor: %.2e\n", worst);
}

}  // namespace
}  // namespace lasp::worker
