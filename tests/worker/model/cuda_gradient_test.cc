// The whole model on a GPU in bf16 against the same on the CPU in fp64: its loss and every tensor
// of its gradient.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>

#include "proto/rpc/status_macros.h"
#include "tests/support/gpu.h"
#include "tests/worker/model/model_under_test.h"
#include "worker/device/cuda_backend.h"

namespace lasp::worker {
namespace {

struct Result {
  double loss = 0;
  std::vector<double> gradients;
};

class CudaGradientTest : public lasp::testing::GpuTest {};

// Normal values that fp32 holds.
std::vector<double> RandomParameters(int64_t count) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 0.02F);
  std::vector<double> values(static_cast<size_t>(count));
  for (double& value : values) {
    value = static_cast<double>(normal(random));
  }
  return values;
}

Result Compute(const LocalRanksOptions& options, const ModelConfig& config,
               const MicroBatchShape& shape, bool rehearse) {
  const RandomSequences batch = MakeSequences(shape.sequences, shape.tokens, config.vocab_size, 3);
  Result result;
  ExpectLocalRanks(options, [&](LocalRank& rank) -> absl::Status {
    LASP_ASSIGN_OR_RETURN(const auto model, ModelUnderTest::Create(config, shape, rank));
    model->SetParameters(RandomParameters(model->layout().count()));
    if (rehearse) {
      rank.backend->Rehearse(true);
      LASP_RETURN_IF_ERROR(model->Run(batch.ids, batch.labels).status());
      rank.backend->Rehearse(false);
    }
    LASP_ASSIGN_OR_RETURN(result.loss, model->Run(batch.ids, batch.labels));
    result.gradients = model->Gradients();
    return rank.backend->Synchronize();
  });
  return result;
}

double RelativeRms(const std::vector<double>& actual, const std::vector<double>& expected,
                   const Parameter& parameter) {
  double difference = 0;
  double scale = 0;
  for (int64_t i = parameter.offset; i < parameter.offset + parameter.count(); ++i) {
    const auto at = static_cast<size_t>(i);
    difference += (actual[at] - expected[at]) * (actual[at] - expected[at]);
    scale += expected[at] * expected[at];
  }
  return std::sqrt(difference / scale);
}

TEST_F(CudaGradientTest, AgreesWithTheCpuInDoublePrecision) {
  const LocalRanksOptions cpu{.compute_type = DType::kFloat64};
  const LocalRanksOptions gpu{.create_backend = []() -> absl::StatusOr<std::unique_ptr<Backend>> {
    return CreateCudaBackend({});
  }};
  // The quick start's model, and one with heads of 128 and lengths that are no multiple of 64.
  const ModelConfig quick_start{.layers = 2,
                                .hidden_size = 128,
                                .heads = 4,
                                .glu_size = 352,
                                .vocab_size = 256,
                                .tie_embeddings = true,
                                .learned_theta = true};
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
    const Result expected = Compute(cpu, config, shape, false);
    const Result actual = Compute(gpu, config, shape, false);
    const Result rehearsed = Compute(gpu, config, shape, true);
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
    EXPECT_EQ(Compute(gpu, config, shape, false).gradients, actual.gradients);
  }
}

}  // namespace
}  // namespace lasp::worker
