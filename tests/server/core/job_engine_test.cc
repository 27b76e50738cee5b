// Every path of a job's life from its submission to its end, and what users may ask twice.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "proto/rpc/error_details.h"
#include "tests/server/core/engine_harness.h"

namespace lasp::server {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(JobEngineTest, RunsToTheEnd) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 4);
  const std::string job = harness.Submit("run", 2, 2);
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
  EXPECT_EQ(harness.Get(job).generation(), 1);
  EXPECT_EQ(harness.Get(job).placements_size(), 4);
  EXPECT_TRUE(harness.Get(job).has_start_time());
  EXPECT_EQ(agent->Count(lasp::v1::ConnectResponse::kAssignment), 4);
  EXPECT_EQ(agent->Count(lasp::v1::ConnectResponse::kPeerAddresses), 4);
  EXPECT_EQ(agent->Count(lasp::v1::ConnectResponse::kStart), 4);
  harness.Report(agent, *agent->Find(job, 0), 1, 50);
  harness.Advance(absl::Seconds(2));
  EXPECT_EQ(harness.Get(job).progress().step(), 50);
  EXPECT_EQ(harness.Get(job).progress().first_loss(), 10.0);
  EXPECT_EQ(harness.Get(job).progress().remaining_duration().seconds(), 25);
  harness.ExitAll(job, kRankDone);
  EXPECT_EQ(harness.State(job), Job::STATE_SUCCEEDED);
  EXPECT_TRUE(harness.Get(job).has_end_time());
  EXPECT_EQ(harness.Get(job).progress().step(), 50);
  EXPECT_THAT(harness.TransitionReasons(job),
              ElementsAre("SUBMITTED", "SCHEDULED", "TRAINING", "ALL_STEPS_DONE"));
  harness.ExpectSlotsAgree();
}

TEST(JobEngineTest, NothingStartsBeforeEveryRankIsReady) {
  EngineHarness harness;
  FakeAgent* a = harness.AddAgent("a", 1);
  FakeAgent* b = harness.AddAgent("b", 1);
  b->readies_ranks = false;
  const std::string job = harness.Submit("run", 2, 1);
  EXPECT_EQ(harness.State(job), Job::STATE_STARTING);
  EXPECT_EQ(a->Count(lasp::v1::ConnectResponse::kStart), 0);
  lasp::v1::ConnectRequest ready;
  *ready.mutable_rank_ready()->mutable_fence() = b->Find(job)->fence;
  harness.Deliver(b, ready);
  harness.Pump();
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
  EXPECT_EQ(a->Count(lasp::v1::ConnectResponse::kStart), 1);
}

TEST(JobEngineTest, QueuedJobsSayWithNumbersWhyTheyWait) {
  EngineHarness harness;
  const std::string nobody = harness.Submit("nobody", 1, 1);
  EXPECT_EQ(harness.Get(nobody).reason(), "NO_WORKERS");
  harness.AddAgent("a", 4);
  harness.AddAgent("b", 2);
  harness.Submit("fills", 1, 2);
  const std::string waits = harness.Submit("waits", 4, 1);
  const std::string behind = harness.Submit("behind", 1, 1);
  const std::string huge = harness.Submit("huge", 8, 1);
  harness.Advance(absl::Seconds(2));
  EXPECT_EQ(harness.Get(waits).reason(), "WAITING_FOR_SLOTS");
  EXPECT_EQ(harness.Get(waits).message(), "needs 4 CPU slots, 3 of 6 free");
  EXPECT_EQ(harness.Get(behind).reason(), "WAITING_FOR_TURN");
  EXPECT_THAT(harness.Get(behind).message(), HasSubstr("1 job before it"));
  EXPECT_EQ(harness.Get(huge).reason(), "NO_CAPACITY");
  EXPECT_EQ(harness.Get(huge).message(), "needs 8 CPU slots, the cluster has 6");
}

TEST(JobEngineTest, AJobTooLargeForTheClusterHoldsNobodyBack) {
  EngineHarness harness;
  harness.AddAgent("a", 2);
  const std::string huge = harness.Submit("huge", 4, 1);
  const std::string small = harness.Submit("small", 1, 1);
  EXPECT_EQ(harness.State(huge), Job::STATE_QUEUED);
  EXPECT_EQ(harness.State(small), Job::STATE_RUNNING);
  harness.AddAgent("b", 3);
  EXPECT_EQ(harness.State(huge), Job::STATE_RUNNING);
}

TEST(JobEngineTest, TheQueueKeepsItsOrderOverARestart) {
  EngineHarness harness;
  harness.AddAgent("a", 2);
  harness.Submit("running", 1, 1);
  const std::string large = harness.Submit("large", 2, 1);
  const std::string small = harness.Submit("small", 1, 1);
  harness.Crash();
  // Until the worker is back, its slots count as capacity: the large job keeps its place.
  FakeAgent* other = harness.AddAgent("other", 1);
  EXPECT_EQ(harness.State(small), Job::STATE_QUEUED);
  EXPECT_TRUE(other->ranks.empty());
  EXPECT_EQ(harness.State(large), Job::STATE_QUEUED);
}

TEST(JobEngineTest, RequestIdsMakeCallsRepeatable) {
  EngineHarness harness;
  auto request = EngineHarness::Request("", 1, 1);
  request.mutable_training_job()->set_display_name("My Run #2");
  request.set_request_id("5b0e8d1c-0000-4000-8000-000000000001");
  const auto first = harness.Create(request);
  LASP_ASSERT_OK(first);
  EXPECT_THAT((*first)->job.name(), HasSubstr("trainingJobs/my-run-2-"));
  for (int round = 0; round < 2; ++round) {
    const auto again = harness.Create(request);
    LASP_ASSERT_OK(again);
    EXPECT_EQ((*again)->job.uid(), (*first)->job.uid());
    harness.Crash();
  }
  EXPECT_EQ(harness.jobs->size(), 1);
  auto other = request;
  other.mutable_training_job()->set_display_name("another");
  const auto refused = harness.Create(other);
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("request_id")));
  EXPECT_EQ(ErrorReason(refused.status()), "REQUEST_ID_REUSED");
  harness.Advance(absl::Hours(1));
  harness.clock.Advance(absl::Hours(24));
  harness.Advance(absl::Minutes(2));
  LASP_EXPECT_OK(harness.Create(other));
}

TEST(JobEngineTest, ARepeatedSuspendDoesNotUndoAResume) {
  EngineHarness harness;
  harness.AddAgent("a", 1);
  const std::string job = harness.Submit("run", 1, 1);
  LASP_EXPECT_OK(harness.Suspend(job, "once"));
  LASP_EXPECT_OK(harness.Resume(job, "again"));
  ASSERT_EQ(harness.State(job), Job::STATE_RUNNING);
  LASP_EXPECT_OK(harness.Suspend(job, "once"));
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
}

TEST(JobEngineTest, CreateRefusesATakenNameAndStoresNothingWhenOnlyAsked) {
  EngineHarness harness;
  harness.Submit("run");
  const auto taken = harness.Create(EngineHarness::Request("run", 1, 1));
  EXPECT_THAT(taken, StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("run exists")));
  auto request = EngineHarness::Request("other", 1, 1);
  request.set_validate_only(true);
  const auto checked = harness.Create(request);
  LASP_ASSERT_OK(checked);
  EXPECT_EQ((*checked)->job.name(), EngineHarness::Name("other"));
  EXPECT_EQ(harness.jobs->size(), 1);
  harness.Crash();
  EXPECT_EQ(harness.jobs->size(), 1);
}

TEST(JobEngineTest, UpdateAndDeleteRespectTheEtag) {
  EngineHarness harness;
  const std::string job = harness.Submit("run");
  lasp::v1::UpdateTrainingJobRequest update;
  update.mutable_training_job()->set_name(job);
  update.mutable_training_job()->set_display_name("new");
  (*update.mutable_training_job()->mutable_labels())["team"] = "nlp";
  update.mutable_training_job()->set_etag(harness.Get(job).etag());
  update.mutable_update_mask()->add_paths("display_name");
  LASP_EXPECT_OK(harness.Call(
      [&](const JobCallback& done) { harness.engine->Update(update, harness.caller, done); }));
  EXPECT_EQ(harness.Get(job).display_name(), "new");
  EXPECT_TRUE(harness.Get(job).labels().empty());
  EXPECT_THAT(harness.Call([&](const JobCallback& done) {
    harness.engine->Update(update, harness.caller, done);
  }),
              StatusIs(absl::StatusCode::kAborted, HasSubstr("etag")));
  EXPECT_THAT(harness.Delete(job),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("QUEUED")));
  LASP_EXPECT_OK(harness.Cancel(job));
  EXPECT_THAT(harness.Delete(job, "0"), StatusIs(absl::StatusCode::kAborted, HasSubstr("etag")));
  LASP_EXPECT_OK(harness.Delete(job, harness.Get(job).etag()));
  EXPECT_EQ(harness.jobs->Find(job), nullptr);
  EXPECT_THAT(harness.Delete(job), StatusIs(absl::StatusCode::kNotFound, HasSubstr("run")));
  // The name is free again, and the old job's rows are not the new one's.
  harness.Submit("run");
  EXPECT_THAT(harness.TransitionReasons(job), ElementsAre("SUBMITTED"));
}

TEST(JobEngineTest, FinishedJobsAreDeletedAfterTheirTime) {
  CoreOptions options;
  options.retain_finished = absl::Minutes(10);
  EngineHarness harness(options);
  FakeAgent* agent = harness.AddAgent("a", 1);
  const std::string job = harness.Submit("run", 1, 1);
  harness.Report(agent, *agent->Find(job), 1, 5);
  const JobViewPtr view = harness.jobs->Find(job);
  LASP_EXPECT_OK(harness.logs->Append({view->job.uid(), 1, 0}, 0, "line\n"));
  harness.ExitAll(job, kRankDone);
  harness.Advance(absl::Minutes(9));
  EXPECT_NE(harness.jobs->Find(job), nullptr);
  harness.Advance(absl::Minutes(3));
  EXPECT_EQ(harness.jobs->Find(job), nullptr);
  EXPECT_EQ(harness.store->CountSteps(view->id, 1, 0).value(), 0);
  // On a thread of its own.
  const LogKey key{view->job.uid(), 1, 0};
  const absl::Duration deadline = SystemClock().Monotonic() + absl::Seconds(30);
  while (harness.logs->End(key).value() != 0 && SystemClock().Monotonic() < deadline) {
    std::this_thread::yield();
  }
  EXPECT_EQ(harness.logs->End(key).value(), 0);
}

}  // namespace
}  // namespace lasp::server
