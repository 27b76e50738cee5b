// Real rank processes that write checkpoints and go on from them.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "proto/rpc/error_details.h"
#include "proto/rpc/rank_exit_code.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_directory.h"
#include "tests/worker/checkpoint/commit.h"
#include "tests/worker/engine/corpus_text.h"
#include "tests/worker/engine/fake_agent.h"
#include "tests/worker/engine/small_spec.h"

namespace lasp::worker {
namespace {

using ::lasp::testing::TempDirectory;

constexpr char kFolder[] = "default/uid";

class RankCheckpointTest : public ::testing::Test {
 protected:
  RankCheckpointTest() {
    folder_.Write("corpus.txt", MakeText(200'000, 5));
    std::filesystem::create_directories(root_.Join(kFolder));
  }

  FakeAgent::Options Options(int sp_size, int dp_size, int64_t max_steps) {
    FakeAgent::Options options;
    options.spec = SmallSpec("corpus.txt");
    options.spec.mutable_parallelism()->mutable_sequence_parallel()->set_size(sp_size);
    options.spec.mutable_parallelism()->mutable_data_parallel()->set_size(dp_size);
    options.spec.set_max_steps(max_steps);
    options.spec.mutable_checkpoint()->set_interval_steps(8);
    options.path_roots = {folder_.path()};
    options.checkpoint_root = root_.path();
    options.checkpoint_folder = kFolder;
    return options;
  }

  // Of the shards that each rank wrote as its `index`-th.
  lasp::v1::CheckpointReference Commit(const FakeAgent::Options& options, FakeAgent& agent,
                                       size_t index) {
    std::vector<lasp::v1::ShardWritten> shards;
    shards.reserve(static_cast<size_t>(agent.world_size()));
    for (int rank = 0; rank < agent.world_size(); ++rank) {
      shards.push_back(agent.record(rank).shards.at(index));
    }
    const auto reference = CommitCheckpoint(root_.path(), kFolder, options.spec, shards);
    LASP_EXPECT_OK(reference);
    return reference.ok() ? *reference : lasp::v1::CheckpointReference();
  }

  static std::vector<double> Losses(const RankRecord& record) {
    std::vector<double> losses;
    losses.reserve(record.steps.size());
    for (const auto& step : record.steps) {
      losses.push_back(step.metrics().loss());
    }
    return losses;
  }

  static constexpr int64_t kEndless = 1'000'000;

  TempDirectory folder_;
  TempDirectory root_;
};

TEST_F(RankCheckpointTest, WritesOnTheIntervalAndAtTheEndAndGoesOnFromThere) {
  FakeAgent::Options options = Options(2, 2, 12);
  lasp::v1::CheckpointReference eighth;
  std::vector<double> losses;
  {
    FakeAgent agent(options);
    ASSERT_TRUE(agent.Begin());
    for (int rank = 0; rank < 4; ++rank) {
      EXPECT_EQ(agent.WaitForExit(rank), kRankDone);
      const RankRecord record = agent.record(rank);
      // What comes after the rank's last word is not counted.
      ASSERT_EQ(record.shards.size(), 2u);
      EXPECT_EQ(record.shards[0].step(), 8);
      EXPECT_EQ(record.shards[1].step(), 12);
      EXPECT_EQ(record.shards[1].fence().rank(), rank);
      EXPECT_EQ(record.checkpoint_totals.written(), 2);
      EXPECT_EQ(record.shards[0].has_state(), rank == 0);
    }
    eighth = Commit(options, agent, 0);
    Commit(options, agent, 1);
    losses = Losses(agent.record(0));
  }
  struct stat status = {};
  ASSERT_EQ(stat(root_.Join(eighth.folder()).c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700u);
  ASSERT_EQ(stat(root_.Join(eighth.folder() + "/rank-0.safetensors").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);

  options.restore_from = eighth;
  options.generation = 2;
  FakeAgent agent(options);
  ASSERT_TRUE(agent.Begin());
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(agent.WaitForExit(rank), kRankDone);
  }
  EXPECT_EQ(Losses(agent.record(0)), (std::vector<double>{losses.begin() + 8, losses.end()}));
  EXPECT_EQ(agent.record(0).steps.back().metrics().generation(), 2);
}

TEST_F(RankCheckpointTest, ADrainSavesBeforeItLeaves) {
  FakeAgent::Options options = Options(2, 1, kEndless);
  options.spec.mutable_checkpoint()->clear_interval_steps();  // every ten minutes
  FakeAgent agent(options);
  ASSERT_TRUE(agent.Begin());
  ASSERT_TRUE(agent.WaitForStep(0, 3));
  agent.Drain(1);
  for (int rank = 0; rank < 2; ++rank) {
    EXPECT_EQ(agent.WaitForExit(rank), kRankDrained);
    const RankRecord record = agent.record(rank);
    ASSERT_EQ(record.shards.size(), 1u);
    EXPECT_EQ(record.shards[0].step(), record.end.step());
  }
  Commit(options, agent, 0);
}

TEST_F(RankCheckpointTest, BeforeTheFirstStepThereIsNothingToSave) {
  FakeAgent::Options options = Options(2, 1, kEndless);
  FakeAgent agent(options);
  ASSERT_TRUE(agent.WaitForAddresses());
  agent.SendAddresses();
  ASSERT_TRUE(agent.WaitForReady());
  agent.Drain(0);
  agent.Drain(1);
  for (int rank = 0; rank < 2; ++rank) {
    EXPECT_EQ(agent.WaitForExit(rank), kRankDrained);
    EXPECT_TRUE(agent.record(rank).shards.empty());
  }
  EXPECT_TRUE(std::filesystem::is_empty(root_.Join(kFolder)));
}

TEST_F(RankCheckpointTest, ByTheClockToo) {
  FakeAgent::Options options = Options(1, 1, kEndless);
  options.spec.mutable_checkpoint()->clear_interval_steps();
  options.spec.mutable_checkpoint()->mutable_interval()->set_seconds(1);
  FakeAgent agent(options);
  ASSERT_TRUE(agent.Begin());
  EXPECT_TRUE(agent.WaitForShards(0, 2));
  EXPECT_GT(agent.record(0).shards[1].step(), agent.record(0).shards[0].step());
}

TEST_F(RankCheckpointTest, ADamagedCheckpointAsksForAnotherAttempt) {
  FakeAgent::Options options = Options(2, 1, 6);
  {
    FakeAgent agent(options);
    ASSERT_TRUE(agent.Begin());
    ASSERT_EQ(agent.WaitForExit(0), kRankDone);
    ASSERT_EQ(agent.WaitForExit(1), kRankDone);
    options.restore_from = Commit(options, agent, 0);
  }
  const std::string path = root_.Join(options.restore_from->folder() + "/rank-1.safetensors");
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(5000);
  file.put('\x5a');
  file.close();
  options.generation = 2;
  FakeAgent agent(options);
  ASSERT_TRUE(agent.WaitForAddresses());
  agent.SendAddresses();
  int corrupt = 0;
  for (int rank = 0; rank < 2; ++rank) {
    EXPECT_EQ(agent.WaitForExit(rank), kRankRetry);
    const absl::Status status = StatusFromProto(agent.record(rank).end.status());
    corrupt += ErrorReason(status) == "CHECKPOINT_CORRUPT" ? 1 : 0;
  }
  EXPECT_GT(corrupt, 0);
}

TEST_F(RankCheckpointTest, WithoutARootTheFlagIsNamed) {
  FakeAgent::Options options = Options(1, 1, 6);
  options.checkpoint_root.clear();
  FakeAgent agent(options);
  EXPECT_EQ(agent.WaitForExit(0), kRankWrongConfiguration);
  EXPECT_NE(agent.record(0).end.status().message().find("--checkpoint_root"), std::string::npos);
}

TEST_F(RankCheckpointTest, ALinkOutOfTheRootIsNotFollowed) {
  TempDirectory elsewhere;
  std::filesystem::create_symlink(elsewhere.path(), root_.Join("default/link"));
  FakeAgent::Options options = Options(1, 1, 9);
  options.checkpoint_folder = "default/link";
  FakeAgent agent(options);
  ASSERT_TRUE(agent.Begin());
  EXPECT_EQ(agent.WaitForExit(0), kRankDone);
  ASSERT_EQ(agent.record(0).shards.size(), 2u);
  EXPECT_NE(agent.record(0).shards[0].status().code(), 0);
  EXPECT_TRUE(std::filesystem::is_empty(elsewhere.path()));
}

}  // namespace
}  // namespace lasp::worker
