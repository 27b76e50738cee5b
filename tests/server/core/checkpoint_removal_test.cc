// What goes from the disk with a job, and with a generation that ends while it writes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "proto/rpc/rank_exit_code.h"
#include "tests/server/core/checkpoint_engine_fixture.h"

namespace lasp::server {
namespace {

using ::testing::IsEmpty;

namespace fs = std::filesystem;

class CheckpointRemovalTest : public CheckpointEngineTest {
 protected:
  // A rank is killed before it could tell of its shard.
  fs::path Begin(int64_t step, int64_t generation) {
    fs::path folder = OnDisk(step, generation);
    fs::create_directories(folder);
    std::ofstream(folder / (ShardFileName(0) + ".tmp")) << "half of it";
    return folder;
  }

  // A job that has ended, and has a checkpoint.
  fs::path Finish() {
    Save(100);
    harness_.ExitAll(job_, kRankDone);
    EXPECT_EQ(harness_.State(job_), Job::STATE_SUCCEEDED);
    return OnDisk(100, 1).parent_path();
  }

  // Nothing more is to be done, after another restart neither.
  void ExpectNothingLeftToDo() {
    harness_.disk_works = false;
    harness_.Advance(absl::Minutes(3));
    EXPECT_THAT(harness_.disk.tasks, IsEmpty());
    harness_.Crash();
    harness_.Advance(absl::Minutes(3));
    EXPECT_THAT(harness_.disk.tasks, IsEmpty());
  }
};

TEST_F(CheckpointRemovalTest, ADeletedJobsFolderGoesThoughTheCoordinatorDiesFirst) {
  const fs::path folder = Finish();
  harness_.disk_works = false;
  LASP_ASSERT_OK(harness_.Delete(job_));
  harness_.Crash();
  ASSERT_TRUE(fs::exists(folder));
  harness_.disk_works = true;
  harness_.Advance(absl::Seconds(2));
  EXPECT_FALSE(fs::exists(folder));
  ExpectNothingLeftToDo();
}

TEST_F(CheckpointRemovalTest, ADeletedJobsFolderGoesThoughTheDiskIsAway) {
  const fs::path folder = Finish();
  fs::rename(root_.path(), root_.path() + "-away");
  LASP_ASSERT_OK(harness_.Delete(job_));
  harness_.Advance(absl::Minutes(3));
  fs::rename(root_.path() + "-away", root_.path());
  ASSERT_TRUE(fs::exists(folder));
  harness_.Advance(absl::Seconds(61));
  EXPECT_FALSE(fs::exists(folder));
  ExpectNothingLeftToDo();
}

TEST_F(CheckpointRemovalTest, ADeletedJobLeavesNothingThatNoRankHasToldOf) {
  const fs::path folder = Begin(10, 1).parent_path();
  LASP_ASSERT_OK(harness_.Cancel(job_));
  ASSERT_EQ(harness_.State(job_), Job::STATE_CANCELLED);
  LASP_ASSERT_OK(harness_.Delete(job_));
  EXPECT_FALSE(fs::exists(folder));
  // One of its ranks was at it yet.
  Begin(20, 1);
  harness_.Advance(absl::Seconds(61));
  EXPECT_FALSE(fs::exists(folder));
  ExpectNothingLeftToDo();
}

TEST_F(CheckpointRemovalTest, WhatAGenerationHasBegunAndNotToldOfGoesAWhileAfterItsEnd) {
  for (const bool restarted : {false, true}) {
    const int64_t generation = harness_.Get(job_).generation();
    Save(10);
    // Committed, and unknown to a store that is restored from a backup.
    std::ofstream(Begin(15, generation) / kManifestFile) << "{}";
    const fs::path others = OnDisk(10, generation).parent_path() / "step-20.gen-1.saved";
    fs::create_directories(others);
    const fs::path begun = Begin(20, generation);
    Tell(Written(0, 30));
    harness_.Exit(agent_, *agent_->Find(job_, 0), 128 + 9);
    harness_.Advance(absl::Seconds(10));
    if (restarted) {
      harness_.Crash();
      harness_.Connect(agent_);
    }
    ASSERT_EQ(harness_.Get(job_).generation(), generation + 1);
    const fs::path under_way = Begin(20, generation + 1);
    harness_.Advance(absl::Seconds(45));
    EXPECT_TRUE(fs::exists(begun));
    harness_.Advance(absl::Seconds(20));
    EXPECT_FALSE(fs::exists(begun));
    EXPECT_TRUE(fs::exists(OnDisk(10, generation) / kManifestFile));
    EXPECT_TRUE(fs::exists(OnDisk(15, generation) / kManifestFile));
    EXPECT_TRUE(fs::exists(others));
    EXPECT_TRUE(fs::exists(under_way));
  }
  LASP_ASSERT_OK(harness_.Cancel(job_));
  harness_.Advance(absl::Seconds(61));
  ExpectNothingLeftToDo();
}

}  // namespace
}  // namespace lasp::server
