// Models with layers of softmax attention: every sequence-parallel method, on any number of ranks,
// computes what one rank does, and what the backward computes anew is what the forward had.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "proto/rpc/status_macros.h"
#include "tests/worker/model/computed_gradients.h"
#include "tests/worker/model/model_under_test.h"
#include "tests/worker/parallel/sequence_parallel_methods.h"

namespace lasp::worker {
namespace {

constexpr int64_t kSequences = 2;
// A slice of any number of ranks ends inside a tile of 64.
constexpr int64_t kLength = 144;

// Two heads of queries to one of keys, which any of 1 to 4 ranks shares out evenly.
ModelConfig Config(const std::string& pattern, bool linear_transformer = false) {
  return {.linear_transformer = linear_transformer,
          .layers = 2,
          .hidden_size = 48,
          .heads = 24,
          .glu_size = 12,
          .vocab_size = 13,
          .tie_embeddings = true,
          .learned_theta = pattern[0] == 'L' && !linear_transformer,
          .layer_pattern = pattern,
          .kv_heads = 12};
}

struct Result {
  double loss = 0;
  std::vector<double> gradients;
  int64_t activation_bytes = 0;
};

// One a rank.
std::vector<Result> RunModel(const ModelConfig& config, int sp_size, DType type,
                             const TestedPlan& plan = {}) {
  const RandomSequences data = MakeSequences(kSequences, kLength, config.vocab_size, 3);
  std::vector<Result> results(static_cast<size_t>(sp_size));
  ExpectLocalRanks(
      {.sp_size = sp_size, .compute_type = type}, [&](LocalRank& rank) -> absl::Status {
        LASP_ASSIGN_OR_RETURN(
            const auto model,
            ModelUnderTest::Create(config, {kSequences, kLength / sp_size}, rank, plan));
        model->SetParameters(model->RandomParameters(7, 0.2));
        Result& result = results[static_cast<size_t>(rank.grid.rank())];
        // Twice: nothing that the first leaves changes the second.
        LASP_RETURN_IF_ERROR(model->Run(data.ids, data.labels).status());
        LASP_ASSIGN_OR_RETURN(result.loss, model->Run(data.ids, data.labels));
        result.gradients = model->Gradients();
        result.activation_bytes = model->memory()[MemoryUse::kActivations];
        return absl::OkStatus();
      });
  return results;
}

class SoftmaxLayersTest : public ::testing::TestWithParam<SequenceParallelMethod> {};

void ExpectWhatOneRankComputes(const SequenceParallelMethod& method, const ModelConfig& config,
                               const Result& expected) {
  const ParameterLayout layout(config);
  for (const int sp_size : {1, 2, 3, 4}) {
    SCOPED_TRACE(config.layer_pattern + " on " + std::to_string(sp_size));
    for (const Result& result : RunModel(config, sp_size, DType::kFloat64, {.method = method})) {
      EXPECT_NEAR(result.loss / expected.loss, 1, 1e-12);
      ASSERT_EQ(result.gradients.size(), expected.gradients.size());
      for (const Parameter& parameter : layout.parameters()) {
        EXPECT_LE(RelativeRms(result.gradients, expected.gradients, parameter), 1e-12)
            << parameter.name;
      }
    }
  }
}

TEST_P(SoftmaxLayersTest, ComputeWhatOneRankDoes) {
  static auto& expected = *new std::map<std::string, Result>();
  for (const ModelConfig& config :
       {Config("LN"), Config("N"), Config("NL", /*linear_transformer=*/true)}) {
    const auto [one_rank, first] = expected.try_emplace(config.layer_pattern);
    if (first) {
      one_rank->second = RunModel(config, 1, DType::kFloat64)[0];
    }
    ExpectWhatOneRankComputes(GetParam(), config, one_rank->second);
  }
}

TEST_P(SoftmaxLayersTest, RecomputingAndOffloadingChangeNoBit) {
  for (const char* const pattern : {"NL", "N"}) {
    const auto run = [&](TestedPlan plan) {
      plan.method = GetParam();
      return RunModel(Config(pattern), 2, DType::kFloat32, plan);
    };
    const std::vector<Result> kept = run({});
    for (const TestedPlan& plan :
         {TestedPlan{.recomputation = Recomputation::kCheapest},
          TestedPlan{.recomputation = Recomputation::kBlock},
          TestedPlan{.recomputation = Recomputation::kBlock, .offloads = true}}) {
      SCOPED_TRACE(testing::Message()
                   << pattern << " leaving out " << static_cast<int>(plan.recomputation)
                   << (plan.offloads ? ", offloading" : ""));
      const std::vector<Result> recomputed = run(plan);
      for (size_t rank = 0; rank < kept.size(); ++rank) {
        EXPECT_EQ(recomputed[rank].loss, kept[rank].loss);
        EXPECT_EQ(recomputed[rank].gradients, kept[rank].gradients);
        EXPECT_LE(recomputed[rank].activation_bytes, kept[rank].activation_bytes);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Methods, SoftmaxLayersTest,
                         ::testing::ValuesIn(EverySequenceParallelMethod()),
                         [](const auto& tested) { return std::string(tested.param.name); });

// A block of softmax attention has neither gate nor activated queries and keys, and its projection
// is narrower.
TEST(SoftmaxLayersMemoryTest, ABlockTakesWhatItsKindNeeds) {
  const auto bytes = [](const char* pattern) {
    ModelConfig config = Config(pattern);
    config.learned_theta = false;
    return RunModel(config, 1, DType::kFloat32)[0].activation_bytes;
  };
  constexpr int64_t kRow = kSequences * kLength * int64_t{4};
  // Linear: q, k, v, u; activated q, k; the gated output, and its inverse rms. Softmax: q, and half
  // as many of k and v; a log-sum-exp a head.
  constexpr int64_t kLinear = kRow * (4 * 48 + 2 * 48 + 48 + 1);
  constexpr int64_t kSoftmax = kRow * (48 + 48 + 24);
  // To the KiB: an arena pads what it hands out.
  EXPECT_EQ((bytes("L") - bytes("LN")) / 1024, (kLinear - kSoftmax) / 1024);
  EXPECT_EQ((bytes("L") - bytes("N")) / 1024, 2 * (kLinear - kSoftmax) / 1024);
}

}  // namespace
}  // namespace lasp::worker
