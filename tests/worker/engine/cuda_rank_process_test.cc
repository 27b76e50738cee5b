// Real rank processes on GPUs, driven as an agent drives them.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "proto/rpc/clock.h"
#include "proto/rpc/rank_exit_code.h"
#include "tests/support/gpu.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/engine/corpus_text.h"
#include "tests/worker/engine/fake_agent.h"
#include "tests/worker/engine/small_spec.h"

namespace lasp::worker {
namespace {

class CudaRankProcess : public ::lasp::testing::GpuTest {
 protected:
  CudaRankProcess() { folder_.Write("corpus.txt", MakeText(200'000, 5)); }

  // One rank a GPU, from the first on.
  FakeAgent::Options Options(int sp_size, int dp_size, int64_t max_steps) {
    FakeAgent::Options options;
    options.spec = SmallSpec("corpus.txt");
    options.spec.mutable_model()->set_hidden_size(256);
    options.spec.mutable_model()->set_heads(4);
    options.spec.mutable_model()->set_glu_size(704);
    options.spec.mutable_parallelism()->mutable_sequence_parallel()->set_size(sp_size);
    options.spec.mutable_parallelism()->mutable_data_parallel()->set_size(dp_size);
    options.spec.set_max_steps(max_steps);
    options.path_roots = {folder_.path()};
    for (int gpu = 0; gpu < sp_size * dp_size; ++gpu) {
      options.gpus.push_back(std::to_string(gpu));
    }
    return options;
  }

  static std::vector<double> Losses(FakeAgent& agent) {
    std::vector<double> losses;
    for (const auto& step : agent.record(0).steps) {
      losses.push_back(step.metrics().loss());
    }
    return losses;
  }

  // How many GPUs to use of those there are.
  static int Gpus() { return std::min(2, ::lasp::testing::GpuCount()); }

  // A job that outlasts any test.
  static constexpr int64_t kEndless = 1'000'000;

  ::lasp::testing::TempDirectory folder_;
};

TEST_F(CudaRankProcess, TrainsToTheEndAndTheRecordMakesTheNextRunTheSame) {
  std::string record;
  std::vector<double> first;
  for (int generation = 1; generation <= 2; ++generation) {
    FakeAgent::Options options = Options(Gpus(), 1, 8);
    options.gemm_record = record;
    FakeAgent agent(options);
    ASSERT_TRUE(agent.Begin());
    for (int rank = 0; rank < agent.world_size(); ++rank) {
      EXPECT_EQ(agent.WaitForExit(rank), kRankDone) << agent.record(rank).end.status().message();
      EXPECT_EQ(agent.record(rank).steps.size(), 8u);
      EXPECT_EQ(agent.record(rank).gemm_record.empty(), rank != 0);
    }
    if (generation == 1) {
      record = agent.record(0).gemm_record;
      first = Losses(agent);
      EXPECT_LT(first.back(), first.front());
    } else {
      EXPECT_EQ(agent.record(0).gemm_record, record);
      EXPECT_EQ(Losses(agent), first);
    }
  }
}

TEST_F(CudaRankProcess, ADrainTakesAllRanksAfterOneStep) {
  FakeAgent agent(Options(Gpus(), 1, kEndless));
  ASSERT_TRUE(agent.Begin());
  ASSERT_TRUE(agent.WaitForStep(0, 2));
  agent.Drain(agent.world_size() - 1);
  for (int rank = 0; rank < agent.world_size(); ++rank) {
    EXPECT_EQ(agent.WaitForExit(rank), kRankDrained);
    EXPECT_EQ(agent.record(rank).end.step(), agent.record(0).end.step());
  }
}

TEST_F(CudaRankProcess, ADrainEndsTheWaitForAPeerThatDoesNotConnect) {
  if (Gpus() < 2) {
    GTEST_SKIP() << "there is one GPU";
  }
  FakeAgent agent(Options(2, 1, kEndless));
  ASSERT_TRUE(agent.WaitForAddresses());
  ::kill(agent.pid(1), SIGSTOP);
  agent.SendAddresses();
  const absl::Duration begin = SystemClock().Monotonic();
  agent.Drain(0);
  EXPECT_EQ(agent.WaitForExit(0), kRankDrained);
  EXPECT_LT(SystemClock().Monotonic() - begin, absl::Seconds(10));
}

TEST_F(CudaRankProcess, ARankWhoseAgentIsGoneEndsAtOnce) {
  FakeAgent agent(Options(1, 1, kEndless));
  ASSERT_TRUE(agent.Begin());
  ASSERT_TRUE(agent.WaitForStep(0, 2));
  const absl::Duration begin = SystemClock().Monotonic();
  agent.CloseChannel(0);
  EXPECT_EQ(agent.WaitForExit(0), kRankRetry);
  EXPECT_LT(SystemClock().Monotonic() - begin, absl::Seconds(5));
}

TEST_F(CudaRankProcess, WhatNoGpuOfThisKindHoldsIsAWrongConfiguration) {
  FakeAgent::Options options = Options(1, 1, 2);
  options.spec.mutable_model()->set_hidden_size(1 << 18);
  options.spec.mutable_model()->set_heads(1 << 11);
  FakeAgent agent(options);
  ASSERT_TRUE(agent.WaitForAddresses());
  agent.SendAddresses();
  EXPECT_EQ(agent.WaitForExit(0), kRankWrongConfiguration);
  const std::string message = agent.record(0).end.status().message();
  EXPECT_NE(message.find("are free"), std::string::npos) << message;
  EXPECT_NE(message.find("optimizer"), std::string::npos) << message;
}

}  // namespace
}  // namespace lasp::worker
