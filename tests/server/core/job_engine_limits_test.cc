// Limits of jobs: their time in the queue and on ranks, and how many of a project may wait.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/rpc/error_details.h"
#include "tests/server/core/bring_to_state.h"
#include "tests/server/core/engine_harness.h"

namespace lasp::server {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::Contains;
using ::testing::HasSubstr;

// Submits a job of `ranks` ranks; 0 for no limit.
std::string SubmitLimited(EngineHarness* harness, const std::string& id, int ranks,
                          int queue_seconds, int run_seconds) {
  auto request = EngineHarness::Request(id, 1, ranks);
  auto* spec = request.mutable_training_job()->mutable_spec();
  if (queue_seconds > 0) {
    spec->mutable_max_queue_duration()->set_seconds(queue_seconds);
  }
  if (run_seconds > 0) {
    spec->mutable_max_run_duration()->set_seconds(run_seconds);
  }
  LASP_EXPECT_OK(harness->Create(request));
  harness->Pump();
  return EngineHarness::Name(id);
}

TEST(JobEngineLimitsTest, AJobThatWaitsTooLongFails) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 1);
  const std::string first = SubmitLimited(&harness, "first", 1, 10, 0);
  const std::string waits = SubmitLimited(&harness, "waits", 1, 10, 0);
  const std::string patient = harness.Submit("patient", 1, 1);
  harness.Advance(absl::Seconds(9));
  EXPECT_EQ(harness.State(waits), Job::STATE_QUEUED);
  harness.Advance(absl::Seconds(2));
  const Job failed = harness.Get(waits);
  EXPECT_EQ(failed.state(), Job::STATE_FAILED);
  EXPECT_EQ(failed.reason(), "QUEUE_TIMEOUT");
  EXPECT_THAT(failed.message(), HasSubstr("10s"));
  EXPECT_THAT(failed.message(), HasSubstr("1 CPU slot, 0 of 1 free"));
  EXPECT_EQ(failed.error().code(), static_cast<int>(absl::StatusCode::kDeadlineExceeded));
  EXPECT_EQ(ErrorReason(StatusFromProto(failed.error())), "QUEUE_TIMEOUT");
  EXPECT_TRUE(failed.has_end_time());
  EXPECT_THAT(harness.TransitionReasons(waits), Contains("QUEUE_TIMEOUT"));
  // Time on ranks is none in the queue, and the queue goes on.
  EXPECT_EQ(harness.State(first), Job::STATE_RUNNING);
  harness.Exit(agent, *agent->Find(first), kRankDone);
  EXPECT_EQ(harness.State(patient), Job::STATE_RUNNING);
}

TEST(JobEngineLimitsTest, ASuspensionEndsTheWait) {
  EngineHarness harness;
  harness.AddAgent("a", 1);
  harness.Submit("first", 1, 1);
  const std::string waits = SubmitLimited(&harness, "waits", 1, 10, 0);
  harness.Advance(absl::Seconds(8));
  LASP_EXPECT_OK(harness.Suspend(waits));
  harness.Advance(absl::Seconds(30));
  EXPECT_EQ(harness.State(waits), Job::STATE_SUSPENDED);
  LASP_EXPECT_OK(harness.Resume(waits));
  harness.Advance(absl::Seconds(8));
  EXPECT_EQ(harness.State(waits), Job::STATE_QUEUED);
  harness.Advance(absl::Seconds(3));
  EXPECT_EQ(harness.State(waits), Job::STATE_FAILED);
}

TEST(JobEngineLimitsTest, AJobThatRunsTooLongFailsAndGivesItsSlotsBack) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 2);
  const std::string job = SubmitLimited(&harness, "run", 2, 0, 10);
  const std::string next = harness.Submit("next", 1, 2);
  harness.Report(agent, *agent->Find(job, 0), 1, 7);
  harness.Advance(absl::Seconds(9));
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
  harness.Advance(absl::Seconds(2));
  const Job failed = harness.Get(job);
  EXPECT_EQ(failed.state(), Job::STATE_FAILED);
  EXPECT_EQ(failed.reason(), "RUN_TIMEOUT");
  EXPECT_THAT(failed.message(), HasSubstr("up to step 7"));
  EXPECT_EQ(ErrorReason(StatusFromProto(failed.error())), "RUN_TIMEOUT");
  EXPECT_EQ(harness.State(next), Job::STATE_RUNNING);
  harness.ExpectSlotsAgree();
}

TEST(JobEngineLimitsTest, RestartsDoNotProlongARun) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 1);
  const std::string job = SubmitLimited(&harness, "run", 1, 0, 10);
  for (int i = 0; i < 3; ++i) {
    harness.Exit(agent, *agent->Find(job), kRankRetry);
    harness.Advance(absl::Seconds(2));
    ASSERT_NE(agent->Find(job), nullptr);
  }
  // The next one waits for longer than there is time left, without a rank.
  harness.Exit(agent, *agent->Find(job), kRankRetry);
  EXPECT_EQ(harness.State(job), Job::STATE_RECOVERING);
  harness.RestartAgent(agent);
  LASP_EXPECT_OK(harness.Drain("a"));
  harness.Advance(absl::Seconds(5));
  EXPECT_EQ(harness.State(job), Job::STATE_FAILED);
  EXPECT_EQ(harness.Get(job).reason(), "RUN_TIMEOUT");
  EXPECT_TRUE(agent->ranks.empty());
}

TEST(JobEngineLimitsTest, ARestartOfTheCoordinatorProlongsNothing) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 1);
  const std::string runs = SubmitLimited(&harness, "runs", 1, 30, 20);
  const std::string waits = SubmitLimited(&harness, "waits", 1, 20, 30);
  harness.Advance(absl::Seconds(12));
  harness.Crash();
  harness.Connect(agent);
  harness.Advance(absl::Seconds(6));
  EXPECT_EQ(harness.State(runs), Job::STATE_RUNNING);
  EXPECT_EQ(harness.State(waits), Job::STATE_QUEUED);
  harness.Advance(absl::Seconds(3));
  EXPECT_EQ(harness.Get(runs).reason(), "RUN_TIMEOUT");
  EXPECT_EQ(harness.State(waits), Job::STATE_FAILED);
}

TEST(JobEngineLimitsTest, WhatHasEndedIsLeftAlone) {
  for (const Job::State state :
       {Job::STATE_CANCELLED, Job::STATE_SUCCEEDED, Job::STATE_SUSPENDED, Job::STATE_CANCELLING}) {
    EngineHarness harness;
    FakeAgent* agent = harness.AddAgent("a", 1);
    agent->obeys_stops = state != Job::STATE_CANCELLING;
    const std::string job = SubmitLimited(&harness, "run", 1, 10, 10);
    if (state == Job::STATE_SUCCEEDED) {
      harness.ExitAll(job, kRankDone);
    } else if (state == Job::STATE_SUSPENDED) {
      LASP_EXPECT_OK(harness.Suspend(job));
    } else {
      LASP_EXPECT_OK(harness.Cancel(job));
    }
    harness.Advance(absl::Seconds(15));
    EXPECT_EQ(harness.State(job), state);
  }
}

TEST(JobEngineLimitsTest, AProjectsQueueIsBounded) {
  CoreOptions options;
  options.max_queued_jobs = 2;
  EngineHarness harness(options);
  FakeAgent* agent = harness.AddAgent("a", 1);
  const std::string runs = harness.Submit("runs", 1, 1);
  const std::string first = harness.Submit("first", 1, 1);
  harness.Submit("second", 1, 1);
  const auto refused = harness.Create(EngineHarness::Request("third", 1, 1));
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("2 jobs in the")));
  EXPECT_EQ(ErrorReason(refused.status()), "TOO_MANY_QUEUED_JOBS");
  EXPECT_EQ(harness.State(EngineHarness::Name("third")), Job::STATE_UNSPECIFIED);
  // Other projects have room of their own.
  auto elsewhere = EngineHarness::Request("third", 1, 1);
  elsewhere.set_parent("projects/other");
  LASP_EXPECT_OK(harness.Create(elsewhere));
  // A job that is suspended counts no more, and comes back only where there is room.
  LASP_EXPECT_OK(harness.Suspend(first));
  harness.Submit("third", 1, 1);
  EXPECT_THAT(harness.Resume(first),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("--max_queued_jobs")));
  EXPECT_EQ(harness.State(first), Job::STATE_SUSPENDED);
  // A restart counts anew, and a job that starts makes room.
  harness.Crash();
  harness.Connect(agent);
  EXPECT_FALSE(harness.Create(EngineHarness::Request("fourth", 1, 1)).ok());
  harness.ExitAll(runs, kRankDone);
  LASP_EXPECT_OK(harness.Resume(first));
}

}  // namespace
}  // namespace lasp::server
