// What each rank of MEGATRON_SP sends: a layer gathers and scatters the tokens of all ranks, twice
// each in the forward pass and half as often again in the backward pass, which gathers what the
// products had read once more. Layers of softmax attention send what those of linear attention do.
#include <gtest/gtest.h>

#include <cstdint>

#include "proto/rpc/status_macros.h"
#include "tests/worker/model/model_under_test.h"
#include "tests/worker/parallel/sequence_parallel_methods.h"

namespace lasp::worker {
namespace {

constexpr int64_t kSequences = 2;
constexpr int64_t kTokens = 69;

struct Model {
  bool linear_transformer = false;
  const char* pattern = "L";
  int64_t gated_layers = 0;
};

constexpr int64_t kLayers = 3;
constexpr Model kModels[] = {
    {.gated_layers = kLayers}, {.linear_transformer = true}, {.pattern = "LNL", .gated_layers = 2}};

ModelConfig ConfigOf(const Model& model) {
  return {.linear_transformer = model.linear_transformer,
          .layers = kLayers,
          .hidden_size = 48,
          .heads = 24,
          .glu_size = 24,
          .vocab_size = 13,
          .layer_pattern = model.pattern,
          .kv_heads = 12};
}

TEST(TensorParallelTrafficTest, ARankSendsExactlyWhatTheFormulaSays) {
  for (const Model& tested : kModels) {
    for (const int ranks : {1, 2, 3, 4}) {
      SCOPED_TRACE(ranks);
      ExpectLocalRanks({.sp_size = ranks}, [&](LocalRank& rank) -> absl::Status {
        const ModelConfig config = ConfigOf(tested);
        LASP_ASSIGN_OR_RETURN(
            const auto model,
            ModelUnderTest::Create(config, {.sequences = kSequences, .tokens = kTokens}, rank,
                                   {.method = MegatronSpMethod()}));
        model->SetParameters(model->RandomParameters(7, 0.4));
        // A number a token: what a gated norm sums over the ranks, in each direction.
        const int64_t rows = kSequences * kTokens * ranks;
        LASP_ASSIGN_OR_RETURN(const auto memory, rank.backend->Allocate(rows * 4));
        LASP_RETURN_IF_ERROR(
            rank.sp->AllReduceSum({memory->data(), DType::kFloat32, rows, 1, 1}).Wait());
        const int64_t sums = tested.gated_layers * rank.sp->counters().sent_bytes;
        const int64_t before = rank.sp->counters().sent_bytes;
        const RandomSequences data = MakeSequences(kSequences, kTokens * ranks, 13, 3);
        LASP_RETURN_IF_ERROR(model->Evaluate(data.ids, data.labels).status());
        const int64_t forward = rank.sp->counters().sent_bytes - before;
        LASP_RETURN_IF_ERROR(model->Run(data.ids, data.labels).status());
        const int64_t both = rank.sp->counters().sent_bytes - before - forward;
        // B N D (P - 1) / P elements of fp32.
        const int64_t gather = rows * config.hidden_size * (ranks - 1) / ranks * 4;
        EXPECT_EQ(forward, config.layers * 4 * gather + sums);
        EXPECT_EQ(both - forward, config.layers * 6 * gather + sums);
        return absl::OkStatus();
      });
    }
  }
}

}  // namespace
}  // namespace lasp::worker
