// What each rank sends for a layer, by method: with LASP one state a direction, whatever the
// length.
#include <gtest/gtest.h>

#include <atomic>
#include <string>

#include "proto/rpc/status_macros.h"
#include "tests/worker/parallel/attention_layer.h"
#include "tests/worker/parallel/local_ranks.h"
#include "tests/worker/parallel/sent_by_kernel.h"
#include "tests/worker/parallel/sequence_parallel_methods.h"
#include "tests/worker/parallel/traffic_formulas.h"

namespace lasp::worker {
namespace {

constexpr int kRanks = 4;

AttentionShape Shape(int64_t tokens, bool lrpe) {
  return {.batch = 2,
          .tokens = tokens,
          .heads = 4,
          .head_size = 32,
          .lrpe = lrpe,
          .slopes = {},
          .theta = {}};
}

class TrafficTest : public ::testing::TestWithParam<SequenceParallelMethod> {};

TEST_P(TrafficTest, ARankSendsExactlyWhatTheMethodsFormulaSays) {
  AttentionShape kinds[] = {Shape(0, false), Shape(0, true), Shape(0, false)};
  kinds[2].normalised = true;
  for (AttentionShape shape : kinds) {
    for (const int64_t tokens : {1, 63, 200}) {
      shape.tokens = tokens;
      ExpectLocalRanks({.sp_size = kRanks}, [&](LocalRank& rank) -> absl::Status {
        const auto attention = GetParam().create(rank.backend, rank.sp);
        LASP_ASSIGN_OR_RETURN(auto layer,
                              AttentionLayer::Create(shape, attention.get(), rank.backend));
        const int place = rank.sp->rank();
        LASP_RETURN_IF_ERROR(layer->Forward());
        LASP_RETURN_IF_ERROR(attention->Finish());
        const int64_t forward = rank.sp->counters().sent_bytes;
        EXPECT_EQ(forward, SentBytesFormula(GetParam().method, shape, kRanks, place, false))
            << tokens;
        LASP_RETURN_IF_ERROR(layer->Backward());
        LASP_RETURN_IF_ERROR(attention->Finish());
        EXPECT_EQ(rank.sp->counters().sent_bytes - forward,
                  SentBytesFormula(GetParam().method, shape, kRanks, place, true))
            << tokens;
        return absl::OkStatus();
      });
    }
  }
}

TEST_P(TrafficTest, TheKernelCountsTheSame) {
  // Gloo precedes each message with a header, and announces sends and receives with as many.
  constexpr int64_t kHeaderBytes = 48;
  constexpr int64_t kHeadersAMessage = 3;
  constexpr int kLayers = 20;
  int64_t before = 0;
  int64_t after = 0;
  std::atomic<int64_t> counted{0};
  const AttentionShape shape = Shape(100, true);
  ExpectLocalRanks({.sp_size = kRanks}, [&](LocalRank& rank) -> absl::Status {
    const auto attention = GetParam().create(rank.backend, rank.sp);
    LASP_ASSIGN_OR_RETURN(auto layer, AttentionLayer::Create(shape, attention.get(), rank.backend));
    LASP_RETURN_IF_ERROR(rank.world->Barrier().Wait());
    if (rank.grid.rank() == 0) {
      before = SentByKernel();
    }
    LASP_RETURN_IF_ERROR(rank.world->Barrier().Wait());
    for (int i = 0; i < kLayers; ++i) {
      LASP_RETURN_IF_ERROR(layer->Forward());
    }
    for (int i = 0; i < kLayers; ++i) {
      LASP_RETURN_IF_ERROR(layer->Backward());
    }
    LASP_RETURN_IF_ERROR(attention->Finish());
    LASP_RETURN_IF_ERROR(rank.world->Barrier().Wait());
    counted += rank.sp->counters().sent_bytes;
    if (rank.grid.rank() == 0) {
      after = SentByKernel();
    }
    return rank.world->Barrier().Wait();
  });
  int64_t expected = 0;
  for (int place = 0; place < kRanks; ++place) {
    expected += kLayers * (SentBytesFormula(GetParam().method, shape, kRanks, place, false) +
                           SentBytesFormula(GetParam().method, shape, kRanks, place, true));
  }
  EXPECT_EQ(counted.load(), expected);
  const int64_t messages =
      kLayers * MessagesFormula(GetParam().method, shape, kRanks, shape.batch * shape.heads);
  // Three barriers lie between the two readings at most.
  constexpr int64_t kBarrierMessages = int64_t{3} * kRanks * (kRanks - 1);
  const int64_t framing =
      (messages + kBarrierMessages) * kHeadersAMessage * kHeaderBytes + kBarrierMessages * 8;
  EXPECT_GE(after - before, counted.load());
  EXPECT_LE(static_cast<double>(after - before),
            1.02 * static_cast<double>(counted.load()) + static_cast<double>(framing));
}

INSTANTIATE_TEST_SUITE_P(Methods, TrafficTest, ::testing::ValuesIn(SequenceParallelMethods()),
                         [](const auto& tested) { return std::string(tested.param.name); });

}  // namespace
}  // namespace lasp::worker
