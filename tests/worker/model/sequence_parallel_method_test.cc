// Every sequence-parallel method against one rank: the loss and every parameter's gradient, on
// every rank.
#include <gtest/gtest.h>

#include <random>
#include <tuple>

#include "proto/rpc/status_macros.h"
#include "tests/worker/model/computed_gradients.h"
#include "tests/worker/model/model_under_test.h"
#include "tests/worker/parallel/sequence_parallel_methods.h"

namespace lasp::worker {
namespace {

constexpr int64_t kSequences = 2;
// A slice of any number of ranks ends inside a block of 64.
constexpr int64_t kLength = 276;

ModelConfig Config(bool linear_transformer) {
  return {.linear_transformer = linear_transformer,
          .layers = 3,
          .hidden_size = 48,
          .heads = 12,
          .glu_size = 24,
          .vocab_size = 13,
          .tie_embeddings = true,
          .learned_theta = !linear_transformer};
}

struct Result {
  double loss = 0;
  std::vector<double> gradients;
};

// One a rank.
std::vector<Result> RunModel(const SequenceParallelMethod& method, int sp_size, DType type,
                             bool linear_transformer = false) {
  const ModelConfig config = Config(linear_transformer);
  const RandomSequences data = MakeSequences(kSequences, kLength, config.vocab_size, 3);
  std::vector<double> parameters(static_cast<size_t>(ParameterLayout(config).count()));
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0, 0.2F);
  for (double& parameter : parameters) {
    parameter = static_cast<double>(normal(random));
  }
  std::vector<Result> results(static_cast<size_t>(sp_size));
  ExpectLocalRanks({.sp_size = sp_size, .compute_type = type},
                   [&](LocalRank& rank) -> absl::Status {
                     LASP_ASSIGN_OR_RETURN(
                         auto model, ModelUnderTest::Create(config, {kSequences, kLength / sp_size},
                                                            rank, {.method = method}));
                     model->SetParameters(parameters);
                     Result& result = results[static_cast<size_t>(rank.grid.rank())];
                     // Twice: nothing that the first leaves changes the second.
                     LASP_RETURN_IF_ERROR(model->Run(data.ids, data.labels).status());
                     LASP_ASSIGN_OR_RETURN(result.loss, model->Run(data.ids, data.labels));
                     result.gradients = model->Gradients();
                     return absl::OkStatus();
                   });
  return results;
}

class SequenceParallelMethodTest : public ::testing::TestWithParam<SequenceParallelMethod> {};

void ExpectWhatOneRankComputes(const SequenceParallelMethod& method, bool linear_transformer,
                               const Result& expected) {
  const ParameterLayout layout(Config(linear_transformer));
  for (const auto& [sp_size, type, bar] :
       {std::tuple(2, DType::kFloat64, 1e-12), std::tuple(3, DType::kFloat32, 1e-5),
        std::tuple(4, DType::kFloat64, 1e-12)}) {
    SCOPED_TRACE(sp_size);
    for (const Result& result : RunModel(method, sp_size, type, linear_transformer)) {
      EXPECT_NEAR(result.loss / expected.loss, 1, bar);
      ASSERT_EQ(result.gradients.size(), expected.gradients.size());
      for (const Parameter& parameter : layout.parameters()) {
        EXPECT_LE(RelativeRms(result.gradients, expected.gradients, parameter), bar)
            << parameter.name;
      }
    }
  }
}

TEST_P(SequenceParallelMethodTest, ComputesWhatOneRankDoes) {
  static const Result& expected = *new Result(RunModel({}, 1, DType::kFloat64)[0]);
  ExpectWhatOneRankComputes(GetParam(), /*linear_transformer=*/false, expected);
}

TEST_P(SequenceParallelMethodTest, ComputesALinearTransformerAsOneRankDoes) {
  static const Result& expected =
      *new Result(RunModel({}, 1, DType::kFloat64, /*linear_transformer=*/true)[0]);
  ExpectWhatOneRankComputes(GetParam(), /*linear_transformer=*/true, expected);
}

INSTANTIATE_TEST_SUITE_P(Methods, SequenceParallelMethodTest,
                         ::testing::ValuesIn(SequenceParallelMethods()),
                         [](const auto& tested) { return std::string(tested.param.name); });

// The three ways of passing a state do the same arithmetic in the same order.
TEST(StatePassingTest, EveryWayGivesTheSameBits) {
  constexpr int kRanks = 4;
  const std::vector<Result> ring = RunModel({}, kRanks, DType::kFloat32);
  for (const SequenceParallelMethod& method : SequenceParallelMethods()) {
    if (method.method == lasp::v1::SequenceParallelSpec::METHOD_LASP2 ||
        method.method == lasp::v1::SequenceParallelSpec::METHOD_ALL_SCAN) {
      const std::vector<Result> other = RunModel(method, kRanks, DType::kFloat32);
      EXPECT_EQ(other[0].loss, ring[0].loss) << method.name;
      EXPECT_EQ(other[0].gradients, ring[0].gradients) << method.name;
    }
  }
}

}  // namespace
}  // namespace lasp::worker
