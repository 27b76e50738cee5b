// Jobs that begin from a checkpoint of another.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "proto/rpc/error_details.h"
#include "proto/spec/spec_defaults.h"
#include "tests/server/core/checkpoint_engine_fixture.h"

namespace lasp::server {
namespace {

using ::lasp::testing::StatusIs;
using lasp::v1::Checkpoint;
using ::testing::AllOf;
using ::testing::HasSubstr;

class StartFromTest : public CheckpointEngineTest {
 protected:
  absl::StatusOr<JobViewPtr> Start(const std::string& id, const std::string& from, int sp, int dp,
                                   int64_t max_steps = 100) {
    lasp::v1::CreateTrainingJobRequest request = EngineHarness::Request(id, sp, dp);
    request.mutable_training_job()->mutable_spec()->set_max_steps(max_steps);
    request.mutable_training_job()->set_start_from(from);
    return Start(request);
  }

  absl::StatusOr<JobViewPtr> Start(const lasp::v1::CreateTrainingJobRequest& request) {
    const auto created = harness_.Create(request);
    harness_.Pump();
    return created;
  }

  absl::Status Remove(int64_t step) {
    absl::Status answer;
    lasp::v1::DeleteCheckpointRequest request;
    request.set_name(absl::StrCat(job_, "/checkpoints/", step));
    harness_.engine->RemoveCheckpoint(
        request, harness_.caller,
        [&answer](const absl::StatusOr<Checkpoint>& removed) { answer = removed.status(); });
    harness_.Pump();
    return answer;
  }
};

TEST_F(StartFromTest, AJobOfAnotherShapeGoesOnFromACheckpointOfThisOne) {
  Save(10);
  Save(20);
  const std::string source = LastAssignment().checkpoint_folder();
  LASP_ASSERT_OK(Start("wide", job_ + "/checkpoints/latest", 1, 2));
  const std::string wide = EngineHarness::Name("wide");
  ASSERT_EQ(harness_.State(wide), Job::STATE_RUNNING);
  EXPECT_EQ(harness_.Get(wide).start_from(), job_ + "/checkpoints/20");
  EXPECT_EQ(harness_.Get(wide).restored_step(), 20);
  const lasp::v1::Assignment& assignment = LastAssignment();
  EXPECT_EQ(assignment.fence().training_job(), wide);
  EXPECT_EQ(assignment.restore_from().folder(),
            absl::StrCat(source, "/", CheckpointFolderName(20, 1)));
  EXPECT_NE(assignment.checkpoint_folder(), source);
  // As long as it has none of its own that one stays.
  LASP_ASSERT_OK(harness_.Cancel(job_));
  EXPECT_EQ(ErrorReason(Remove(20)), "CHECKPOINT_IN_USE");
  EXPECT_EQ(ErrorReason(harness_.Delete(job_)), "CHECKPOINT_IN_USE");
  LASP_EXPECT_OK(Remove(10));
  // A failure before its own first one, and a restart of the coordinator, lead there again.
  harness_.Crash();
  harness_.Connect(agent_);
  harness_.Exit(agent_, *agent_->Find(wide, 0), 128 + 9);
  harness_.Advance(absl::Seconds(5));
  EXPECT_EQ(harness_.Get(wide).restored_step(), 20);
  EXPECT_EQ(harness_.State(wide), Job::STATE_RUNNING);
  job_ = wide;
  Save(30);
  harness_.Exit(agent_, *agent_->Find(wide, 0), 128 + 9);
  harness_.Advance(absl::Seconds(5));
  EXPECT_EQ(harness_.Get(wide).restored_step(), 30);
  job_ = EngineHarness::Name("job");
  LASP_EXPECT_OK(Remove(20));
  LASP_EXPECT_OK(harness_.Delete(job_));
}

TEST_F(StartFromTest, WhatCannotBeGoneOnFromIsRefused) {
  Save(10);
  for (const std::string& from :
       {job_ + "/checkpoints/11", job_, std::string("projects/other/trainingJobs/a/checkpoints/1"),
        std::string("projects/default/trainingJobs/none/checkpoints/latest"), std::string("x")}) {
    EXPECT_TRUE(absl::IsInvalidArgument(Start("next", from, 1, 1).status())) << from;
  }
  EXPECT_THAT(Start("next", job_ + "/checkpoints/10", 1, 1, /*max_steps=*/200),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("another spec"),
                             HasSubstr("only parallelism, memory, device, recovery, checkpoint and "
                                       "time limits may differ"))));
}

// The fixture's job says nothing of layer_pattern, documents and state_type: it was stored before
// there were such fields.
TEST_F(StartFromTest, DefaultsThatCameLaterMakeNoOtherSpec) {
  Save(10);
  lasp::v1::CreateTrainingJobRequest request = EngineHarness::Request("next", 1, 1);
  lasp::v1::TrainingSpec& spec = *request.mutable_training_job()->mutable_spec();
  FillDefaults(&spec);
  ASSERT_EQ(spec.model().layer_pattern(), "L");
  spec.mutable_memory()->set_activations(lasp::v1::MemorySpec::ACTIVATIONS_STREAM);
  request.mutable_training_job()->set_start_from(job_ + "/checkpoints/10");
  LASP_EXPECT_OK(Start(request));
  request.set_training_job_id("other");
  spec.mutable_data()->set_documents(lasp::v1::DataSpec::DOCUMENTS_PACKED);
  EXPECT_THAT(Start(request),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("another spec")));
}

TEST_F(StartFromTest, AJobWhoseStartIsDamagedDoesNotBeginAnew) {
  Save(10);
  LASP_ASSERT_OK(Start("next", job_ + "/checkpoints/10", 1, 1));
  const std::string next = EngineHarness::Name("next");
  ASSERT_EQ(harness_.State(next), Job::STATE_RUNNING);
  const FakeRank rank = *agent_->Find(next, 0);
  lasp::v1::ConnectRequest message;
  auto* const exited = message.mutable_rank_exited();
  *exited->mutable_fence() = rank.fence;
  exited->set_slot(rank.slot);
  exited->set_exit_code(kRankRetry);
  *exited->mutable_status() = StatusToProto(
      ErrorWithReason(absl::StatusCode::kDataLoss, "a digest differs", "CHECKPOINT_CORRUPT"));
  agent_->Forget(rank.fence);
  Tell(message);
  harness_.Advance(absl::Seconds(5));
  EXPECT_EQ(At(10).state(), Checkpoint::STATE_CORRUPT);
  EXPECT_EQ(harness_.State(next), Job::STATE_FAILED);
  EXPECT_EQ(harness_.Get(next).reason(), "START_LOST");
  // The slot that it was about to have is another one's.
  EXPECT_EQ(harness_.State(harness_.Submit("other", 2)), Job::STATE_RUNNING);
}

}  // namespace
}  // namespace lasp::server
