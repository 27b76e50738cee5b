// Cancelling, suspending, resuming and draining, in every state of a job.
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

constexpr Job::State kAllStates[] = {
    Job::STATE_QUEUED,     Job::STATE_STARTING,  Job::STATE_RUNNING,    Job::STATE_RECOVERING,
    Job::STATE_SUSPENDING, Job::STATE_SUSPENDED, Job::STATE_CANCELLING, Job::STATE_SUCCEEDED,
    Job::STATE_FAILED,     Job::STATE_CANCELLED};

TEST(JobEngineControlTest, CancelInEveryState) {
  for (const Job::State state : kAllStates) {
    SCOPED_TRACE(Job::State_Name(state));
    EngineHarness harness;
    FakeAgent* agent = harness.AddAgent("a", state == Job::STATE_QUEUED ? 1 : 2);
    const std::string job = BringTo(&harness, agent, state);
    const auto answer = harness.Cancel(job);
    if (state == Job::STATE_SUCCEEDED || state == Job::STATE_FAILED) {
      EXPECT_THAT(answer, StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("cannot be")));
      EXPECT_THAT(answer, StatusIs(absl::StatusCode::kFailedPrecondition,
                                   HasSubstr("create another job of its spec")));
      EXPECT_EQ(ErrorReason(answer.status()), "WRONG_STATE");
      continue;
    }
    LASP_EXPECT_OK(answer);
    if (!agent->obeys_stops) {
      EXPECT_EQ(harness.State(job), Job::STATE_CANCELLING);
      harness.ExitAll(job, 128 + 9);
    }
    EXPECT_EQ(harness.State(job), Job::STATE_CANCELLED);
    EXPECT_TRUE(agent->ranks.empty());
    LASP_EXPECT_OK(harness.Cancel(job));
    harness.ExpectSlotsAgree();
  }
}

TEST(JobEngineControlTest, SuspendInEveryState) {
  for (const Job::State state : kAllStates) {
    SCOPED_TRACE(Job::State_Name(state));
    EngineHarness harness;
    FakeAgent* agent = harness.AddAgent("a", state == Job::STATE_QUEUED ? 1 : 2);
    const std::string job = BringTo(&harness, agent, state);
    const auto answer = harness.Suspend(job);
    if (state == Job::STATE_SUCCEEDED || state == Job::STATE_FAILED ||
        state == Job::STATE_CANCELLED || state == Job::STATE_CANCELLING) {
      EXPECT_THAT(answer, StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("cannot be")));
      continue;
    }
    LASP_EXPECT_OK(answer);
    if (!agent->obeys_stops) {
      EXPECT_EQ(harness.State(job), Job::STATE_SUSPENDING);
      harness.ExitAll(job, kRankDrained);
    }
    EXPECT_EQ(harness.State(job), Job::STATE_SUSPENDED);
    EXPECT_TRUE(agent->ranks.empty());
  }
}

TEST(JobEngineControlTest, ResumeStartsASuspendedJobAgain) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 2);
  const std::string job = BringTo(&harness, agent, Job::STATE_SUSPENDED);
  LASP_EXPECT_OK(harness.Resume(job));
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
  EXPECT_EQ(harness.Get(job).generation(), 2);
  EXPECT_EQ(harness.Get(job).restart_count(), 0);
  EXPECT_THAT(harness.Resume(job),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("RUNNING")));
}

TEST(JobEngineControlTest, AJobThatEndsWhileItIsSuspendedHasSucceeded) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 2);
  const std::string job = BringTo(&harness, agent, Job::STATE_SUSPENDING);
  harness.Report(agent, *agent->Find(job, 0), 1, harness.Get(job).progress().max_steps());
  harness.ExitAll(job, kRankDone);
  EXPECT_EQ(harness.State(job), Job::STATE_SUCCEEDED);
}

TEST(JobEngineControlTest, ARankThatDiesDuringASuspensionIsNamed) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 2);
  const std::string job = BringTo(&harness, agent, Job::STATE_SUSPENDING);
  agent->obeys_stops = true;
  const FakeRank rank = agent->ranks.front();
  harness.Exit(agent, rank, 137, "killed");
  harness.Advance(absl::Seconds(1));
  EXPECT_EQ(harness.State(job), Job::STATE_SUSPENDED);
  EXPECT_THAT(harness.Get(job).message(), HasSubstr("on workers/a was ended by signal 9"));
}

TEST(JobEngineControlTest, ASuspensionThatTakesTooLongBecomesAKilling) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 2);
  const std::string job = BringTo(&harness, agent, Job::STATE_SUSPENDING);
  EXPECT_EQ(agent->received.back().stop().mode(), lasp::v1::Stop::MODE_DRAIN);
  agent->obeys_stops = true;
  harness.Advance(absl::Seconds(126));
  EXPECT_EQ(agent->ranks.size(), 0);
  EXPECT_EQ(harness.State(job), Job::STATE_SUSPENDED);
}

TEST(JobEngineControlTest, DrainingAWorkerMovesItsJobsWithoutTouchingTheirBudget) {
  EngineHarness harness;
  FakeAgent* a = harness.AddAgent("a", 1);
  FakeAgent* b = harness.AddAgent("b", 1);
  const std::string job = harness.Submit("run", 1, 1, /*max_restarts=*/0);
  FakeAgent* busy = a->ranks.empty() ? b : a;
  const auto drained = harness.Drain(busy->id);
  LASP_ASSERT_OK(drained);
  EXPECT_EQ((*drained)->worker.state(), lasp::v1::Worker::STATE_DRAINING);
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
  EXPECT_EQ(harness.Get(job).generation(), 2);
  EXPECT_EQ(harness.Get(job).restart_count(), 0);
  EXPECT_TRUE(busy->ranks.empty());
  EXPECT_EQ(harness.workers->Find(busy->id)->worker.state(), lasp::v1::Worker::STATE_DRAINED);
  EXPECT_THAT(harness.TransitionReasons(job), Contains("WORKER_DRAINED"));
  // The wish outlives the coordinator; undoing it gives the slots back.
  harness.Crash();
  harness.Connect(a);
  harness.Connect(b);
  EXPECT_EQ(harness.workers->Find(busy->id)->worker.state(), lasp::v1::Worker::STATE_DRAINED);
  LASP_EXPECT_OK(harness.Drain(busy->id, /*undo=*/true));
  EXPECT_EQ(harness.workers->Find(busy->id)->worker.state(), lasp::v1::Worker::STATE_READY);
  EXPECT_EQ(harness.State(harness.Submit("other", 1, 1)), Job::STATE_RUNNING);
  EXPECT_THAT(harness.Drain("nobody"), StatusIs(absl::StatusCode::kNotFound, HasSubstr("nobody")));
}

TEST(JobEngineControlTest, AHostThatWasDrainedForALongRepairComesBackDrained) {
  EngineHarness harness;
  FakeAgent* const repaired = harness.AddAgent("repaired", 1);
  FakeAgent* const other = harness.AddAgent("other", 1);
  LASP_ASSERT_OK(harness.Drain("repaired"));
  const auto pass = [&harness](absl::Duration time) {
    harness.clock.Advance(time);
    harness.Advance(absl::Minutes(2));
  };
  harness.Disconnect(repaired);
  harness.Disconnect(other);
  pass(absl::Minutes(1));
  pass(absl::Hours(30));
  EXPECT_EQ(harness.workers->Find("other"), nullptr);
  harness.Connect(other);
  EXPECT_EQ(harness.workers->Find("other")->worker.state(), lasp::v1::Worker::STATE_READY);
  harness.Connect(repaired);
  EXPECT_EQ(harness.workers->Find("repaired")->worker.state(), lasp::v1::Worker::STATE_DRAINED);
  // One that does not come back at all is not listed for ever.
  harness.Disconnect(repaired);
  pass(absl::Minutes(1));
  pass(absl::Hours(24 * 31));
  EXPECT_EQ(harness.workers->Find("repaired"), nullptr);
}

TEST(JobEngineControlTest, AJobThatIsDoneBeforeItsWorkerHasDrainedIsDone) {
  EngineHarness harness;
  FakeAgent* const agent = harness.AddAgent("a", 2);
  const std::string job = harness.Submit("run", 2, 1);
  agent->obeys_stops = false;
  LASP_ASSERT_OK(harness.Drain("a"));
  EXPECT_EQ(harness.State(job), Job::STATE_RECOVERING);
  harness.Report(agent, *agent->Find(job, 0), 1, harness.Get(job).progress().max_steps());
  harness.ExitAll(job, kRankDone);
  EXPECT_EQ(harness.State(job), Job::STATE_SUCCEEDED);
  EXPECT_EQ(harness.Get(job).generation(), 1);
}

TEST(JobEngineControlTest, AJobWhoseLastStepNobodyHasSeenIsNotDone) {
  EngineHarness harness;
  FakeAgent* const agent = harness.AddAgent("a", 2);
  const std::string job = harness.Submit("run", 2, 1);
  agent->obeys_stops = false;
  LASP_ASSERT_OK(harness.Suspend(job));
  harness.Report(agent, *agent->Find(job, 0), 1, harness.Get(job).progress().max_steps() - 1);
  harness.ExitAll(job, kRankDone);
  EXPECT_EQ(harness.State(job), Job::STATE_SUSPENDED);
}

TEST(JobEngineControlTest, AnAgentThatDrainsItselfMovesItsJobs) {
  EngineHarness harness;
  FakeAgent* a = harness.AddAgent("a", 2);
  const std::string job = harness.Submit("run", 2, 1, /*max_restarts=*/0);
  FakeAgent* b = harness.AddAgent("b", 2);
  lasp::v1::ConnectRequest draining;
  draining.mutable_draining();
  harness.Deliver(a, draining);
  harness.Pump();
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
  EXPECT_EQ(b->ranks.size(), 2);
  EXPECT_TRUE(a->ranks.empty());
}

TEST(JobEngineControlTest, ARankThatWasDrainedCostsNoRestartWhoeverDrainedIt) {
  for (const bool trains : {true, false}) {
    EngineHarness harness;
    FakeAgent* agent = harness.AddAgent("a", 1);
    agent->readies_ranks = trains;
    const std::string job = harness.Submit("run", 1, 1, /*max_restarts=*/0);
    ASSERT_EQ(harness.State(job), trains ? Job::STATE_RUNNING : Job::STATE_STARTING);
    // That the worker drains is not known here: its word for it may be on its way.
    harness.Exit(agent, *agent->Find(job), kRankDrained);
    EXPECT_EQ(harness.State(job), Job::STATE_RECOVERING);
    harness.Advance(absl::Milliseconds(800));
    EXPECT_EQ(harness.Get(job).generation(), 1);
    agent->readies_ranks = true;
    harness.Advance(absl::Milliseconds(400));
    EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
    EXPECT_EQ(harness.Get(job).generation(), 2);
    EXPECT_EQ(harness.Get(job).restart_count(), 0);
  }
}

TEST(JobEngineControlTest, ASuspensionLetsRanksThatDrainEndTheirStepAndGivesThemNoMoreTime) {
  EngineHarness harness;
  FakeAgent* const agent = harness.AddAgent("a", 2);
  const std::string job = harness.Submit("run", 2, 1);
  agent->obeys_stops = false;
  LASP_ASSERT_OK(harness.Drain("a"));
  harness.Advance(absl::Seconds(100));
  LASP_ASSERT_OK(harness.Suspend(job));
  EXPECT_EQ(harness.State(job), Job::STATE_SUSPENDING);
  for (const lasp::v1::ConnectResponse& message : agent->received) {
    EXPECT_FALSE(message.has_stop() && message.stop().mode() != lasp::v1::Stop::MODE_DRAIN);
  }
  harness.Advance(absl::Seconds(24));
  EXPECT_EQ(agent->received.back().stop().mode(), lasp::v1::Stop::MODE_DRAIN);
  agent->obeys_stops = true;
  harness.Advance(absl::Seconds(2));
  EXPECT_TRUE(agent->ranks.empty());
  EXPECT_EQ(harness.State(job), Job::STATE_SUSPENDED);
}

}  // namespace
}  // namespace lasp::server
