// What becomes of checkpoints, with agents that write real files and a disk that can be stopped.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "proto/rpc/error_details.h"
#include "proto/rpc/rank_exit_code.h"
#include "tests/server/core/checkpoint_engine_fixture.h"

namespace lasp::server {
namespace {

using ::lasp::testing::StatusIs;
using lasp::v1::Checkpoint;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

namespace fs = std::filesystem;

TEST_F(CheckpointEngineTest, IsCommittedWhenEveryShardIsThere) {
  EXPECT_EQ(LastAssignment().checkpoint_folder(),
            absl::StrCat("default/", harness_.Get(job_).uid()));
  EXPECT_FALSE(LastAssignment().has_restore_from());
  Tell(Written(1, 10));
  EXPECT_EQ(At(10).state(), Checkpoint::STATE_WRITING);
  EXPECT_EQ(harness_.Get(job_).checkpoint_step(), 0);
  EXPECT_FALSE(fs::exists(OnDisk(10, 1) / kManifestFile));
  Tell(Written(0, 10));
  const Checkpoint checkpoint = At(10);
  EXPECT_EQ(checkpoint.state(), Checkpoint::STATE_COMMITTED);
  EXPECT_EQ(checkpoint.name(), job_ + "/checkpoints/10");
  EXPECT_EQ(checkpoint.size_bytes(), 96);
  EXPECT_TRUE(checkpoint.has_verify_time());
  EXPECT_EQ(harness_.Get(job_).checkpoint_step(), 10);
  std::stringstream text;
  text << std::ifstream(OnDisk(10, 1) / kManifestFile).rdbuf();
  EXPECT_EQ(ManifestDigest(text.str()), checkpoint.manifest_digest());
  const auto manifest = ParseManifest(text.str());
  LASP_ASSERT_OK(manifest.status());
  EXPECT_EQ(manifest->spec().max_steps(), 100);
  EXPECT_EQ(manifest->shards_size(), 2);
}

TEST_F(CheckpointEngineTest, TheNextGenerationStartsFromTheNewest) {
  Save(10);
  Save(20);
  KillRanks();
  EXPECT_EQ(harness_.State(job_), Job::STATE_RUNNING);
  const lasp::v1::CheckpointReference& from = LastAssignment().restore_from();
  EXPECT_EQ(from.folder(), Folder(20, 1));
  EXPECT_EQ(from.manifest_digest(), At(20).manifest_digest());
  EXPECT_EQ(harness_.Get(job_).progress().step(), 20);
  EXPECT_THAT(harness_.TransitionReasons(job_), ::testing::Contains("RESTARTED_FROM_CHECKPOINT"));
  Save(30);
  EXPECT_EQ(At(30).parent_step(), 20);
}

TEST_F(CheckpointEngineTest, ReportsMayComeTwice) {
  Tell(Written(0, 10));
  Tell(Written(0, 10));
  EXPECT_EQ(At(10).size_bytes(), 48);
  Tell(Written(1, 10));
  Tell(Written(1, 10));
  EXPECT_EQ(At(10).state(), Checkpoint::STATE_COMMITTED);
}

TEST_F(CheckpointEngineTest, OneRankThatCannotWriteFailsItForAllAndTrainingGoesOn) {
  lasp::v1::ConnectRequest failed;
  *failed.mutable_shard_written()->mutable_fence() = agent_->Find(job_, 1)->fence;
  failed.mutable_shard_written()->set_step(10);
  failed.mutable_shard_written()->mutable_status()->set_code(
      static_cast<int>(absl::StatusCode::kResourceExhausted));
  failed.mutable_shard_written()->mutable_status()->set_message("no space left on device");
  Tell(failed);
  Tell(Written(0, 10));
  EXPECT_EQ(At(10).state(), Checkpoint::STATE_FAILED);
  EXPECT_EQ(At(10).message(), "rank 1 on workers/host could not write it: no space left on device");
  EXPECT_EQ(harness_.State(job_), Job::STATE_RUNNING);
  // What was written goes, once nobody can be writing there.
  EXPECT_TRUE(fs::exists(OnDisk(10, 1)));
  harness_.Advance(absl::Seconds(70));
  EXPECT_FALSE(fs::exists(OnDisk(10, 1)));
  EXPECT_EQ(At(10).state(), Checkpoint::STATE_FAILED);
  Save(20);
  EXPECT_THAT(Steps(), ElementsAre(20));
}

TEST_F(CheckpointEngineTest, WhatAGenerationHasNotWrittenWholeHasFailed) {
  Save(10);
  Tell(Written(1, 20));
  KillRanks();
  EXPECT_EQ(At(20).state(), Checkpoint::STATE_FAILED);
  EXPECT_EQ(At(20).message(), "its generation ended before rank 0 had written");
  EXPECT_EQ(LastAssignment().restore_from().step(), 10);
}

TEST_F(CheckpointEngineTest, AnOlderGenerationWritesNoneAnyMore) {
  const lasp::v1::ConnectRequest late = Written(0, 10);
  const lasp::v1::ConnectRequest later = Written(1, 10);
  KillRanks();
  Tell(late);
  Tell(later);
  EXPECT_THAT(All(), IsEmpty());
}

TEST_F(CheckpointEngineTest, HalfCommittedIsRolledForwardByTheNextStart) {
  harness_.disk_works = false;
  Save(10);
  EXPECT_EQ(At(10).state(), Checkpoint::STATE_WRITING);
  harness_.Crash();
  harness_.disk_works = true;
  harness_.Advance(absl::Seconds(2));
  EXPECT_EQ(At(10).state(), Checkpoint::STATE_COMMITTED);
  EXPECT_EQ(harness_.Get(job_).checkpoint_step(), 10);
}

TEST_F(CheckpointEngineTest, ShardsOutliveTheCoordinator) {
  Tell(Written(0, 10));
  const lasp::v1::ConnectRequest second = Written(1, 10);
  harness_.Crash();
  harness_.Connect(agent_);
  Tell(second);
  EXPECT_EQ(At(10).state(), Checkpoint::STATE_COMMITTED);
  harness_.Crash();
  EXPECT_EQ(At(10).state(), Checkpoint::STATE_COMMITTED);
  harness_.Connect(agent_);
  KillRanks();
  EXPECT_EQ(LastAssignment().restore_from().step(), 10);
}

TEST_F(CheckpointEngineTest, AStartWaitsForTheCommit) {
  Save(10);
  harness_.disk_works = false;
  Save(20);
  LASP_ASSERT_OK(harness_.Suspend(job_).status());
  harness_.Advance(absl::Seconds(1));
  EXPECT_EQ(harness_.State(job_), Job::STATE_SUSPENDED);
  LASP_ASSERT_OK(harness_.Resume(job_).status());
  harness_.Advance(absl::Seconds(3));
  EXPECT_EQ(harness_.State(job_), Job::STATE_QUEUED);
  harness_.disk_works = true;
  harness_.Advance(absl::Seconds(1));
  EXPECT_EQ(harness_.State(job_), Job::STATE_RUNNING);
  EXPECT_EQ(LastAssignment().restore_from().step(), 20);
}

TEST_F(CheckpointEngineTest, ADamagedOneIsFoundAndTheOneBeforeItUsed) {
  Save(10);
  harness_.disk_works = false;
  Save(20);
  harness_.disk_works = true;
  // After the commit, before it is read back.
  harness_.engine->CheckpointDone(DoCheckpointTask(
      CheckpointFolder(root_.path()), harness_.disk.tasks.front(), [] { return false; }));
  harness_.disk.tasks.pop_front();
  FlipABit(OnDisk(20, 1) / ShardFileName(1));
  harness_.Pump();
  EXPECT_EQ(At(20).state(), Checkpoint::STATE_CORRUPT);
  EXPECT_THAT(At(20).message(), HasSubstr("rank-1.safetensors is damaged in block 0"));
  EXPECT_EQ(harness_.Get(job_).checkpoint_step(), 10);
  KillRanks();
  EXPECT_EQ(LastAssignment().restore_from().step(), 10);
}

TEST_F(CheckpointEngineTest, ARankThatCannotStartFromADamagedOneMarksIt) {
  Save(10);
  Save(20);
  KillRanks();
  ASSERT_EQ(LastAssignment().restore_from().step(), 20);
  // The coordinator may forget what the generation began from, but for its store.
  harness_.Crash();
  harness_.Connect(agent_);
  lasp::v1::ConnectRequest message;
  auto* const exited = message.mutable_rank_exited();
  const FakeRank rank = *agent_->Find(job_, 1);
  *exited->mutable_fence() = rank.fence;
  exited->set_slot(rank.slot);
  exited->set_exit_code(kRankRetry);
  *exited->mutable_status() = StatusToProto(ErrorWithReason(
      absl::StatusCode::kDataLoss, "rank-0.safetensors is damaged", "CHECKPOINT_CORRUPT"));
  agent_->Forget(rank.fence);
  Tell(message);
  KillRanks();
  EXPECT_EQ(At(20).state(), Checkpoint::STATE_CORRUPT);
  EXPECT_EQ(LastAssignment().restore_from().step(), 10);
  // The same step again, by another generation: that one has the name now.
  Save(20);
  EXPECT_EQ(At(20).state(), Checkpoint::STATE_COMMITTED);
  EXPECT_EQ(At(20).generation(), harness_.Get(job_).generation());
}

TEST_F(CheckpointEngineTest, RetentionKeepsTheLastAndSome) {
  lasp::v1::UpdateTrainingJobRequest update;
  update.mutable_training_job()->set_name(job_);
  auto* const retention = update.mutable_training_job()->mutable_checkpoint_retention();
  retention->set_keep_last(2);
  retention->set_keep_every_steps(40);
  update.mutable_update_mask()->add_paths("checkpoint_retention");
  LASP_ASSERT_OK(harness_.Call(
      [&](const JobCallback& done) { harness_.engine->Update(update, harness_.caller, done); }));
  for (int64_t step = 10; step <= 70; step += 10) {
    Save(step);
  }
  EXPECT_THAT(Steps(), ElementsAre(70, 60, 40));
  EXPECT_FALSE(fs::exists(OnDisk(50, 1)));
  EXPECT_TRUE(fs::exists(OnDisk(40, 1) / kManifestFile));
  harness_.Crash();
  EXPECT_THAT(Steps(), ElementsAre(70, 60, 40));
}

TEST_F(CheckpointEngineTest, NoneGoesBeforeNewerOnesHaveBeenReadBack) {
  Save(10);
  harness_.disk_works = false;
  for (int64_t step = 20; step <= 60; step += 10) {
    Save(step);
  }
  EXPECT_EQ(Steps().size(), 6);
  harness_.disk_works = true;
  harness_.Pump();
  EXPECT_THAT(Steps(), ElementsAre(60, 50, 40));
}

TEST_F(CheckpointEngineTest, NoAgentOfAnEarlierReleaseStartsAJobAnewThatHasCheckpoints) {
  Save(10);
  LASP_ASSERT_OK(harness_.Suspend(job_).status());
  ASSERT_EQ(harness_.State(job_), Job::STATE_SUSPENDED);
  harness_.Disconnect(agent_);
  agent_->incarnation += "+";
  agent_->newest_protocol = kCheckpointProtocol - 1;
  harness_.Connect(agent_);
  LASP_ASSERT_OK(harness_.Resume(job_).status());
  harness_.Advance(absl::Seconds(5));
  EXPECT_EQ(harness_.State(job_), Job::STATE_QUEUED);
  // One without may.
  const std::string fresh = harness_.Submit("fresh", 2);
  harness_.Advance(absl::Seconds(2));
  EXPECT_EQ(harness_.State(fresh), Job::STATE_RUNNING);
  harness_.AddAgent("upgraded", 2);
  harness_.Advance(absl::Seconds(2));
  EXPECT_EQ(harness_.State(job_), Job::STATE_RUNNING);
  EXPECT_EQ(harness_.Get(job_).placements(0).worker(), "workers/upgraded");
}

TEST_F(CheckpointEngineTest, NoAgentOfAnEarlierReleaseGetsWhatItsRanksTakeNoNoticeOf) {
  agent_->newest_protocol = kStrategiesProtocol - 1;
  harness_.RestartAgent(agent_);
  lasp::v1::CreateTrainingJobRequest request =
      harness_.Request("streamed", 2, 1, /*max_restarts=*/5);
  request.mutable_training_job()->mutable_spec()->mutable_memory()->set_activations(
      lasp::v1::MemorySpec::ACTIVATIONS_STREAM);
  const auto created = harness_.Create(request);
  LASP_ASSERT_OK(created);
  const std::string job = (*created)->job.name();
  LASP_ASSERT_OK(harness_.Cancel(job_));
  harness_.Advance(absl::Seconds(5));
  EXPECT_EQ(harness_.State(job), Job::STATE_QUEUED);
  harness_.AddAgent("upgraded", 2);
  harness_.Advance(absl::Seconds(2));
  EXPECT_EQ(harness_.State(job), Job::STATE_RUNNING);
}

TEST_F(CheckpointEngineTest, ADiskThatRefusesIsTriedAgain) {
  Tell(Written(0, 10));
  const lasp::v1::ConnectRequest second = Written(1, 10);
  fs::rename(root_.path(), root_.path() + "-away");
  Tell(second);
  EXPECT_EQ(At(10).state(), Checkpoint::STATE_WRITING);
  fs::rename(root_.path() + "-away", root_.path());
  harness_.Advance(absl::Seconds(7));
  EXPECT_EQ(At(10).state(), Checkpoint::STATE_COMMITTED);
}

TEST_F(CheckpointEngineTest, SlowShardsTakeNoTimeFromTheCommit) {
  Tell(Written(0, 10));
  harness_.Advance(absl::Minutes(2));
  const lasp::v1::ConnectRequest second = Written(1, 10);
  fs::rename(root_.path(), root_.path() + "-away");
  Tell(second);
  harness_.Advance(absl::Seconds(50));
  EXPECT_EQ(At(10).state(), Checkpoint::STATE_WRITING);
  harness_.Advance(absl::Seconds(20));
  EXPECT_EQ(At(10).state(), Checkpoint::STATE_FAILED);
  EXPECT_THAT(At(10).message(), HasSubstr("could not be committed"));
  fs::rename(root_.path() + "-away", root_.path());
}

TEST_F(CheckpointEngineTest, AManifestThatIsTooLargeToBeReadAgainIsNotCommitted) {
  harness_.disk_works = false;
  Save(10);
  const CheckpointFolder folder(root_.path(), /*max_manifest_bytes=*/100);
  const CheckpointOutcome outcome =
      DoCheckpointTask(folder, harness_.disk.tasks.front(), [] { return false; });
  EXPECT_THAT(outcome.status, StatusIs(absl::StatusCode::kInvalidArgument,
                                       HasSubstr("one of more than 100 is not read again")));
  EXPECT_FALSE(fs::exists(OnDisk(10, 1) / kManifestFile));
  harness_.engine->CheckpointDone(outcome);
  harness_.Pump();
  EXPECT_EQ(At(10).state(), Checkpoint::STATE_FAILED);
}

TEST_F(CheckpointEngineTest, AVerificationThatTheDiskRefusesIsTriedAgain) {
  Save(10);
  ASSERT_TRUE(At(10).has_verify_time());
  fs::rename(root_.path(), root_.path() + "-away");
  lasp::v1::VerifyCheckpointRequest request;
  request.set_name(job_ + "/checkpoints/10");
  harness_.engine->VerifyCheckpoint(request, harness_.caller,
                                    [](const absl::StatusOr<Checkpoint>&) {});
  harness_.Pump();
  EXPECT_EQ(At(10).state(), Checkpoint::STATE_COMMITTED);
  EXPECT_FALSE(At(10).has_verify_time());
  fs::rename(root_.path() + "-away", root_.path());
  harness_.Advance(absl::Seconds(7));
  EXPECT_TRUE(At(10).has_verify_time());
}

TEST_F(CheckpointEngineTest, FailuresWithoutANewerCheckpointEndTheJob) {
  LASP_ASSERT_OK(harness_.Cancel(job_));
  lasp::v1::CreateTrainingJobRequest request = EngineHarness::Request("stuck", 2, 1, 100);
  request.mutable_training_job()
      ->mutable_spec()
      ->mutable_recovery()
      ->set_max_failures_without_checkpoint(3);
  LASP_ASSERT_OK(harness_.Create(request));
  harness_.Pump();
  job_ = EngineHarness::Name("stuck");
  const auto fail = [this] {
    ASSERT_EQ(harness_.State(job_), Job::STATE_RUNNING);
    harness_.Exit(agent_, *agent_->Find(job_, 0), 128 + 9);
    harness_.Advance(absl::Seconds(20));
  };
  Save(10);
  fail();
  EXPECT_EQ(harness_.Get(job_).failures_without_checkpoint(), 1);
  fail();
  EXPECT_EQ(harness_.Get(job_).failures_without_checkpoint(), 2);
  // Progress counts anew; the same step once more is none.
  Save(20);
  EXPECT_EQ(harness_.Get(job_).failures_without_checkpoint(), 0);
  fail();
  Save(20);
  fail();
  fail();
  EXPECT_EQ(harness_.State(job_), Job::STATE_FAILED);
  EXPECT_EQ(harness_.Get(job_).reason(), "NO_PROGRESS");
  EXPECT_THAT(harness_.Get(job_).message(), HasSubstr("that of step 20"));
}

TEST_F(CheckpointEngineTest, AShardThatIsNotThereFailsIt) {
  Tell(Written(0, 10));
  const lasp::v1::ConnectRequest second = Written(1, 10);
  fs::remove(OnDisk(10, 1) / ShardFileName(0));
  Tell(second);
  EXPECT_EQ(At(10).state(), Checkpoint::STATE_FAILED);
  EXPECT_THAT(At(10).message(), HasSubstr("rank-0.safetensors is not there"));
}

TEST_F(CheckpointEngineTest, DeletingOne) {
  Save(10);
  Save(20);
  const auto remove = [this](const std::string& name) {
    lasp::v1::DeleteCheckpointRequest request;
    request.set_name(name);
    absl::StatusOr<Checkpoint> answer = absl::UnknownError("no answer");
    harness_.engine->RemoveCheckpoint(
        request, harness_.caller,
        [&answer](absl::StatusOr<Checkpoint> checkpoint) { answer = std::move(checkpoint); });
    harness_.Pump();
    return answer;
  };
  EXPECT_THAT(remove(job_ + "/checkpoints/20").status(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("would resume from")));
  EXPECT_THAT(remove(job_ + "/checkpoints/11").status(),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("checkpoints/11")));
  const auto removed = remove(job_ + "/checkpoints/10");
  LASP_ASSERT_OK(removed.status());
  EXPECT_EQ(removed->state(), Checkpoint::STATE_DELETING);
  EXPECT_THAT(Steps(), ElementsAre(20));
  EXPECT_FALSE(fs::exists(OnDisk(10, 1)));
}

TEST_F(CheckpointEngineTest, AJobsEndKeepsThemAndItsDeletionDoesNot) {
  Save(100);
  harness_.ExitAll(job_, kRankDone);
  ASSERT_EQ(harness_.State(job_), Job::STATE_SUCCEEDED);
  harness_.clock.Advance(absl::Hours(24 * 365));
  harness_.Advance(absl::Minutes(2));
  ASSERT_EQ(harness_.State(job_), Job::STATE_SUCCEEDED);
  EXPECT_TRUE(fs::exists(OnDisk(100, 1) / kManifestFile));
  const fs::path folder = OnDisk(100, 1).parent_path();
  LASP_ASSERT_OK(harness_.Delete(job_));
  EXPECT_FALSE(fs::exists(folder));
  EXPECT_TRUE(fs::exists(root_.path()));
}

}  // namespace
}  // namespace lasp::server
