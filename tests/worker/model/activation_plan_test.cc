// What the backward computes anew is what the forward had: gradients are the same, bit for bit, and
// no rank asks another for anything twice.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "proto/rpc/status_macros.h"
#include "tests/worker/model/model_under_test.h"

namespace lasp::worker {
namespace {

constexpr int64_t kSequences = 2;

struct Outcome {
  std::vector<double> gradients;
  double loss = 0;
  std::vector<int64_t> sent_bytes;  // of each rank, within its SP group
  int64_t activation_bytes = 0;
};

ModelConfig SmallModel(bool linear_transformer = false) {
  return {.linear_transformer = linear_transformer,
          .layers = 5,
          .hidden_size = 16,
          .heads = 2,
          .glu_size = 20,
          .vocab_size = 31,
          .learned_theta = !linear_transformer};
}

Outcome Compute(int sp_size, int64_t length, DType type, const TestedPlan& plan,
                bool linear_transformer = false) {
  const ModelConfig config = SmallModel(linear_transformer);
  const RandomSequences data = MakeSequences(kSequences, length, config.vocab_size, 3);
  Outcome outcome;
  outcome.sent_bytes.resize(static_cast<size_t>(sp_size));
  ExpectLocalRanks(
      {.sp_size = sp_size, .compute_type = type}, [&](LocalRank& rank) -> absl::Status {
        LASP_ASSIGN_OR_RETURN(
            const auto model,
            ModelUnderTest::Create(config, {.sequences = kSequences, .tokens = length / sp_size},
                                   rank, plan));
        model->SetParameters(model->RandomParameters(7, 0.4));
        LASP_ASSIGN_OR_RETURN(const double loss, model->Run(data.ids, data.labels));
        outcome.sent_bytes[static_cast<size_t>(rank.grid.rank())] = rank.sp->counters().sent_bytes;
        if (rank.grid.rank() == 0) {
          outcome.gradients = model->Gradients();
          outcome.loss = loss;
          outcome.activation_bytes = model->memory()[MemoryUse::kActivations];
        }
        return absl::OkStatus();
      });
  return outcome;
}

TEST(ActivationPlanTest, RecomputingChangesNoBitAndExchangesNothing) {
  for (const DType type : {DType::kFloat32, DType::kFloat64}) {
    for (const int sp_size : {1, 2, 3}) {
      const int64_t length = int64_t{69} * sp_size;
      const Outcome kept = Compute(sp_size, length, type, {});
      ASSERT_FALSE(kept.gradients.empty());
      for (const TestedPlan& plan :
           {TestedPlan{.recomputation = Recomputation::kCheapest},
            TestedPlan{.recomputation = Recomputation::kBlock},
            TestedPlan{.recomputation = Recomputation::kBlock, .offloads = true}}) {
        SCOPED_TRACE(testing::Message()
                     << "SP " << sp_size << " leaving out " << static_cast<int>(plan.recomputation)
                     << (plan.offloads ? ", offloading" : ""));
        const Outcome recomputed = Compute(sp_size, length, type, plan);
        EXPECT_EQ(recomputed.loss, kept.loss);
        EXPECT_EQ(recomputed.gradients, kept.gradients);
        EXPECT_EQ(recomputed.sent_bytes, kept.sent_bytes);
      }
    }
  }
}

TEST(ActivationPlanTest, EverySequenceParallelMethodComputesAnew) {
  for (const SequenceParallelMethod& method : SequenceParallelMethods()) {
    SCOPED_TRACE(method.name);
    const Outcome kept = Compute(2, 138, DType::kFloat32, {.method = method});
    for (const Recomputation recomputation : {Recomputation::kCheapest, Recomputation::kBlock}) {
      const Outcome recomputed =
          Compute(2, 138, DType::kFloat32, {.method = method, .recomputation = recomputation});
      EXPECT_EQ(recomputed.loss, kept.loss);
      EXPECT_EQ(recomputed.gradients, kept.gradients);
    }
  }
}

TEST(ActivationPlanTest, EveryPlanIsTheSameForALinearTransformer) {
  for (const SequenceParallelMethod& method : SequenceParallelMethods()) {
    SCOPED_TRACE(method.name);
    const auto compute = [&](TestedPlan plan) {
      plan.method = method;
      return Compute(2, 138, DType::kFloat32, plan, /*linear_transformer=*/true);
    };
    const Outcome kept = compute({});
    for (const TestedPlan& plan :
         {TestedPlan{.recomputation = Recomputation::kCheapest},
          TestedPlan{.recomputation = Recomputation::kBlock},
          TestedPlan{.recomputation = Recomputation::kBlock, .offloads = true}}) {
      const Outcome recomputed = compute(plan);
      EXPECT_EQ(recomputed.loss, kept.loss);
      EXPECT_EQ(recomputed.gradients, kept.gradients);
    }
  }
}

TEST(ActivationPlanTest, LeavesOutWhatItSays) {
  constexpr int64_t kLength = 128;
  const auto bytes = [](const TestedPlan& plan) {
    return Compute(1, kLength, DType::kFloat32, plan).activation_bytes;
  };
  const ModelConfig config = SmallModel();
  // Of each block but one, fp32: four inputs of products, one twice as wide.
  const int64_t row = kSequences * kLength * 4;
  const int64_t others = config.layers - 1;
  const int64_t kept = bytes({});
  EXPECT_EQ(kept - bytes({.recomputation = Recomputation::kCheapest}),
            others * row * 5 * config.hidden_size);
  // All but a block's input: 11 rows of the hidden size, two of the MLP, and three numbers.
  const int64_t inputs_kept = bytes({.recomputation = Recomputation::kBlock});
  EXPECT_EQ(kept - inputs_kept, others * row * (11 * config.hidden_size + 2 * config.glu_size + 3));
  // Two inputs take turns.
  EXPECT_EQ(inputs_kept - bytes({.recomputation = Recomputation::kBlock, .offloads = true}),
            (config.layers - 2) * row * config.hidden_size);
}

}  // namespace
}  // namespace lasp::worker
