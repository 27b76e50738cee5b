// The recurrence on a GPU in bf16 against the same on the CPU in fp64.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "proto/rpc/status_macros.h"
#include "tests/support/gpu.h"
#include "tests/support/status_matchers.h"
#include "tests/worker/inference/parameters_in_memory.h"
#include "tests/worker/model/model_under_test.h"
#include "worker/device/cuda_backend.h"
#include "worker/inference/recurrent_model.h"

namespace lasp::worker {
namespace {

constexpr int64_t kLength = 1200;

// Of a TransNormer, and of a Linear Transformer.
class CudaRecurrentModelTest : public lasp::testing::GpuTest,
                               public ::testing::WithParamInterface<bool> {
 protected:
  struct Outcome {
    std::vector<double> logits;  // after each chunk
    double loss = 0;
  };

  // Takes a sequence in chunks of these sizes, again and again.
  absl::StatusOr<Outcome> Run(Backend* backend, const std::vector<int64_t>& chunks) const {
    const int64_t longest = *std::max_element(chunks.begin(), chunks.end());
    LASP_ASSIGN_OR_RETURN(const auto model, RecurrentModel::Create(config_, {1, longest}, backend,
                                                                   ReaderOf(layout_, parameters_)));
    Outcome outcome;
    std::vector<float> logits;
    const absl::Span<const int32_t> ids(data_.ids);
    const absl::Span<const int32_t> labels(data_.labels);
    size_t next = 0;
    for (int64_t at = 0; at < kLength; ++next) {
      const int64_t count = std::min(chunks[next % chunks.size()], kLength - at);
      LASP_RETURN_IF_ERROR(model->Advance(ids.subspan(at, count)));
      LASP_RETURN_IF_ERROR(model->AddLoss(labels.subspan(at, count)));
      at += count;
    }
    LASP_RETURN_IF_ERROR(model->Logits(0, &logits));
    outcome.logits.assign(logits.begin(), logits.end());
    LASP_ASSIGN_OR_RETURN(outcome.loss, model->LossSum());
    return outcome;
  }

  static double RelativeError(const std::vector<double>& actual,
                              const std::vector<double>& expected) {
    double difference = 0;
    double scale = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      difference += std::pow(actual[i] - expected[i], 2);
      scale += expected[i] * expected[i];
    }
    return std::sqrt(difference / scale);
  }

  // Heads of 128; weights as an untrained model has them.
  const ModelConfig config_{.linear_transformer = GetParam(),
                            .layers = 3,
                            .hidden_size = 256,
                            .heads = 2,
                            .glu_size = 704,
                            .vocab_size = 1000,
                            .learned_theta = false};
  const ParameterLayout layout_{config_};
  const std::vector<double> parameters_ = RandomParameters(layout_, 0.02);
  const RandomSequences data_ = MakeSequences(1, kLength, config_.vocab_size, 3);
};

INSTANTIATE_TEST_SUITE_P(LinearTransformer, CudaRecurrentModelTest, ::testing::Bool());

TEST_P(CudaRecurrentModelTest, AgreesWithTheCpuForChunksOfAnyLength) {
  const auto cpu = CreateCpuBackend(DType::kFloat64, 4).value();
  const auto expected = Run(cpu.get(), {kLength});
  LASP_ASSERT_OK(expected);
  for (const std::vector<int64_t>& chunks :
       {std::vector<int64_t>{kLength}, {512}, {64}, {1}, {7, 1, 100}}) {
    const auto gpu = CreateCudaBackend({}).value();
    const auto actual = Run(gpu.get(), chunks);
    LASP_ASSERT_OK(actual);
    EXPECT_LE(RelativeError(actual->logits, expected->logits), 2e-2) << chunks[0];
    EXPECT_NEAR(actual->loss / expected->loss, 1, 1e-3) << chunks[0];
    RecordProperty("chunk " + std::to_string(chunks[0]),
                   std::to_string(RelativeError(actual->logits, expected->logits)));
    // The same bits again.
    const auto again = CreateCudaBackend({}).value();
    EXPECT_EQ(Run(again.get(), chunks)->logits, actual->logits) << chunks[0];
  }
}

}  // namespace
}  // namespace lasp::worker
