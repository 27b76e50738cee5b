// The coordinator dies and comes back: what it adopts, gives up and still knows.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server/core/bring_to_state.h"
#include "tests/server/core/engine_harness.h"

namespace lasp::server {
namespace {

using ::testing::HasSubstr;

TEST(JobEngineRestartTest, ARestartOfTheCoordinatorExcusesNoRankFromEnding) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 2);
  const std::string job = harness.Submit("run", 2, 1, /*max_restarts=*/0);
  harness.Exit(agent, *agent->Find(job, 0), kRankDone);
  harness.Crash();
  harness.Connect(agent);
  harness.Advance(absl::Seconds(80));
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING) << "agents may take a while to come back";
  harness.Advance(absl::Seconds(20));
  EXPECT_EQ(harness.State(job), Job::STATE_FAILED);
  EXPECT_THAT(harness.Get(job).message(), HasSubstr("did not end with the others: 1 on a"));
}

TEST(JobEngineRestartTest, WhatLaterStepsDoNotTellSurvivesARestart) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 1);
  const std::string job = harness.Submit("run");
  lasp::v1::ConnectRequest message;
  *message.mutable_step_reports()->mutable_fence() = agent->Find(job)->fence;
  for (int step = 1; step <= 20; ++step) {
    auto* row = message.mutable_step_reports()->add_steps();
    row->set_step(step);
    row->set_loss(10.0 / step);
    row->set_skipped(step % 5 == 0);
    if (step == 10) {
      row->set_eval_loss(3.5);
    }
  }
  harness.Deliver(agent, std::move(message));
  harness.Pump();
  harness.Report(agent, *agent->Find(job), 21, 22);
  for (const bool restarted : {false, true}) {
    if (restarted) {
      harness.Crash();
      harness.Connect(agent);
    } else {
      harness.Advance(absl::Seconds(2));
    }
    const auto progress = harness.Get(job).progress();
    EXPECT_EQ(progress.step(), 22) << restarted;
    EXPECT_EQ(progress.skipped_step_count(), 4) << restarted;
    EXPECT_EQ(progress.eval_loss(), 3.5) << restarted;
    EXPECT_EQ(progress.first_loss(), 10.0) << restarted;
  }
  // Counted on from there.
  lasp::v1::ConnectRequest more;
  *more.mutable_step_reports()->mutable_fence() = agent->Find(job)->fence;
  more.mutable_step_reports()->add_steps()->set_step(23);
  more.mutable_step_reports()->mutable_steps(0)->set_skipped(true);
  harness.Deliver(agent, std::move(more));
  harness.Pump();
  EXPECT_EQ(harness.Get(job).progress().skipped_step_count(), 5);
}

TEST(JobEngineRestartTest, ARestartedCoordinatorAdoptsRunningRanks) {
  EngineHarness harness;
  FakeAgent* a = harness.AddAgent("a", 2);
  FakeAgent* b = harness.AddAgent("b", 2);
  const std::string job = harness.Submit("run", 4, 1);
  FakeAgent* first = a->Find(job, 0) != nullptr ? a : b;
  harness.Report(first, *first->Find(job, 0), 1, 10);
  harness.Crash();
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
  EXPECT_EQ(harness.Get(job).progress().step(), 10);
  EXPECT_EQ(harness.Get(job).progress().first_loss(), 10.0);
  harness.Advance(absl::Seconds(20));
  harness.Connect(a);
  harness.Connect(b);
  // The agent sends again what was not acknowledged, and what happened meanwhile.
  harness.Report(first, *first->Find(job, 0), 8, 20);
  harness.Advance(absl::Seconds(30));
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
  EXPECT_EQ(harness.Get(job).generation(), 1);
  EXPECT_EQ(harness.Get(job).progress().step(), 20);
  EXPECT_EQ(harness.store->CountSteps(harness.jobs->Find(job)->id, 1, 0).value(), 20);
  harness.ExpectSlotsAgree();
  harness.ExitAll(job, kRankDone);
  EXPECT_EQ(harness.State(job), Job::STATE_SUCCEEDED);
}

TEST(JobEngineRestartTest, RanksThatEndedWhileTheCoordinatorWasAwayCount) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 2);
  const std::string job = harness.Submit("run", 2, 1);
  harness.Exit(agent, *agent->Find(job, 0), kRankDone);
  harness.Crash();
  const FakeRank rank = *agent->Find(job, 1);
  agent->ranks.clear();
  harness.Connect(agent);
  harness.Exit(agent, rank, kRankDone);
  EXPECT_EQ(harness.State(job), Job::STATE_SUCCEEDED);
}

// The agent holds the exits of its ranks, and says first that they are not there.
TEST(JobEngineRestartTest, ASlotIsNotGivenAwayBeforeTheEndOfItsRankIsTold) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 1);
  const std::string job = harness.Submit("run");
  const std::string next = harness.Submit("next");
  harness.Crash();
  const FakeRank rank = *agent->Find(job);
  agent->ranks.clear();
  harness.Connect(agent);
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
  EXPECT_EQ(harness.State(next), Job::STATE_QUEUED);
  harness.Exit(agent, rank, kRankDone);
  EXPECT_EQ(harness.State(job), Job::STATE_SUCCEEDED);
  EXPECT_EQ(harness.State(next), Job::STATE_RUNNING);
}

TEST(JobEngineRestartTest, RanksThatDoNotComeBackAfterARestartAreGivenUp) {
  EngineHarness harness;
  FakeAgent* a = harness.AddAgent("a", 1);
  FakeAgent* b = harness.AddAgent("b", 1);
  const std::string job = harness.Submit("run", 2, 1);
  harness.Crash();
  harness.Connect(a);
  harness.Advance(absl::Seconds(29));
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
  harness.Advance(absl::Seconds(2));
  EXPECT_EQ(harness.State(job), Job::STATE_RECOVERING);
  EXPECT_TRUE(a->ranks.empty());
  b->ranks.clear();
  b->incarnation = "second";
  harness.Connect(b);
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
  EXPECT_EQ(harness.Get(job).generation(), 2);
}

// Nobody is to look for an agent that was stopped on purpose; for one that is gone, yes.
TEST(JobEngineRestartTest, AWorkerThatLeftBeforeARestartIsNotMissed) {
  EngineHarness harness;
  FakeAgent* leaves = harness.AddAgent("leaves", 1);
  harness.AddAgent("goes", 1);
  FakeAgent* returns = harness.AddAgent("returns", 1);
  for (FakeAgent* agent : {leaves, returns}) {
    lasp::v1::ConnectRequest draining;
    draining.mutable_draining();
    harness.Deliver(agent, draining);
    harness.Disconnect(agent);
  }
  harness.Advance(absl::Seconds(20));
  EXPECT_TRUE(harness.workers->Find("returns")->left);
  harness.Connect(returns);
  const absl::Time restart = harness.clock.Now();
  harness.Crash();
  EXPECT_EQ(harness.workers->Find("leaves")->missed_since, absl::InfiniteFuture());
  EXPECT_EQ(harness.workers->Find("goes")->missed_since, restart);
  EXPECT_EQ(harness.workers->Find("returns")->missed_since, restart);
  harness.Connect(returns);
  EXPECT_EQ(harness.workers->Find("returns")->missed_since, absl::InfiniteFuture());
}

TEST(JobEngineRestartTest, ACancelIsCarriedOutAfterARestart) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 2);
  const std::string job = BringTo(&harness, agent, Job::STATE_CANCELLING);
  harness.Crash();
  EXPECT_EQ(harness.State(job), Job::STATE_CANCELLING);
  agent->obeys_stops = true;
  harness.Connect(agent);
  EXPECT_TRUE(agent->ranks.empty());
  EXPECT_EQ(harness.State(job), Job::STATE_CANCELLED);
}

TEST(JobEngineRestartTest, AStartInterruptedByARestartGoesOn) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 1);
  const std::string job = BringTo(&harness, harness.AddAgent("b", 2), Job::STATE_STARTING);
  FakeAgent* b = harness.agents.at("b").get();
  harness.Crash();
  harness.Connect(agent);
  b->readies_ranks = true;
  harness.Connect(b);
  for (const FakeRank& rank : std::vector<FakeRank>(b->ranks)) {
    lasp::v1::ConnectRequest message;
    *message.mutable_rank_address()->mutable_fence() = rank.fence;
    message.mutable_rank_address()->set_address("again");
    harness.Deliver(b, message);
  }
  harness.Pump();
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
  EXPECT_EQ(harness.Get(job).generation(), 1);
}

// What the ranks of a generation do alike on GPUs depends on what they were told, and a restart
// forgets that: ranks that are assigned again would mix with those told before it.
TEST(JobEngineRestartTest, RanksOnGpusAllHearTheSameOfTheirPeersAcrossARestart) {
  EngineHarness harness;
  for (const char* const id : {"a", "b"}) {
    harness.AddAgent(id, /*slots=*/0, /*gpus=*/1)->readies_ranks = false;
  }
  auto request = EngineHarness::Request("run", 2, 1);
  request.mutable_training_job()->mutable_spec()->set_device(lasp::v1::TrainingSpec::DEVICE_GPU);
  LASP_EXPECT_OK(harness.Create(request));
  const std::string job = EngineHarness::Name("run");
  ASSERT_EQ(harness.State(job), Job::STATE_STARTING);
  // One of them has never heard of its assignment.
  FakeAgent* const unaware = harness.agents.at("b").get();
  harness.Crash();
  ASSERT_NE(unaware->Find(job), nullptr);
  unaware->Forget(unaware->Find(job)->fence);
  for (auto& [id, agent] : harness.agents) {
    agent->readies_ranks = true;
    harness.Connect(agent.get());
  }
  harness.Advance(absl::Seconds(60));
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
  for (const auto& [id, agent] : harness.agents) {
    for (const lasp::v1::ConnectResponse& message : agent->received) {
      if (message.has_assignment()) {
        EXPECT_EQ(message.assignment().peers_protocol_version(), kWorkerProtocol.newest)
            << "agent " << id << ", generation " << message.assignment().fence().generation();
      }
    }
  }
}

// They may be at their last checkpoint.
TEST(JobEngineRestartTest, RanksThatDrainAreNotKilledForARestart) {
  for (const bool trains : {true, false}) {
    EngineHarness harness;
    FakeAgent* const agent = harness.AddAgent("a", 2);
    agent->readies_ranks = trains;
    const std::string job = harness.Submit("run", 2, 1);
    agent->obeys_stops = false;
    LASP_ASSERT_OK(harness.Drain("a"));
    harness.Crash();
    agent->received.clear();
    harness.Connect(agent);
    harness.Advance(absl::Seconds(20));
    lasp::v1::ConnectRequest message;
    for (const FakeRank& rank : agent->ranks) {
      *message.mutable_heartbeat()->add_ranks()->mutable_fence() = rank.fence;
    }
    harness.Deliver(agent, message);
    harness.Pump();
    EXPECT_GE(agent->Count(lasp::v1::ConnectResponse::kStop), 2);
    for (const lasp::v1::ConnectResponse& told : agent->received) {
      if (told.has_stop()) {
        EXPECT_EQ(told.stop().mode(),
                  trains ? lasp::v1::Stop::MODE_DRAIN : lasp::v1::Stop::MODE_KILL);
      }
    }
    EXPECT_EQ(harness.State(job), Job::STATE_RECOVERING);
    agent->readies_ranks = true;
    harness.ExitAll(job, kRankDrained);
    LASP_ASSERT_OK(harness.Drain("a", /*undo=*/true));
    EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
    EXPECT_EQ(harness.Get(job).restart_count(), 0);
  }
}

TEST(JobEngineRestartTest, ProgressIsThatOfThePresentGenerationThoughAnOlderOneCameFurther) {
  EngineHarness harness;
  FakeAgent* const agent = harness.AddAgent("a", 1);
  const std::string job = harness.Submit("run");
  harness.Report(agent, *agent->Find(job), 1, 50);
  harness.Exit(agent, *agent->Find(job), 128 + 9);
  harness.Advance(absl::Seconds(1));
  ASSERT_EQ(harness.Get(job).generation(), 2);
  harness.Report(agent, *agent->Find(job), 1, 10);
  harness.Crash();
  EXPECT_EQ(harness.Get(job).progress().step(), 10);
  EXPECT_EQ(harness.Get(job).progress().loss(), 1.0);
  EXPECT_EQ(harness.Get(job).progress().first_loss(), 10.0);
  // Before it has made any.
  harness.Connect(agent);
  harness.Exit(agent, *agent->Find(job), 128 + 9);
  harness.Advance(absl::Seconds(2));
  ASSERT_EQ(harness.Get(job).generation(), 3);
  harness.Crash();
  EXPECT_EQ(harness.Get(job).progress().step(), 0);
}

TEST(JobEngineRestartTest, WhatRanksOfASuspendedJobDidAsToldIsNoFailure) {
  struct Case {
    bool trains;
    int exit_code;
    const char* told;
  };

  for (const Case& one :
       {Case{.trains = true, .exit_code = kRankDrained, .told = "stopped as asked"},
        Case{.trains = false, .exit_code = 128 + 9, .told = "stopped as asked"},
        Case{.trains = true, .exit_code = 128 + 9, .told = "a failure came"}}) {
    SCOPED_TRACE(::testing::Message() << one.trains << " " << one.exit_code);
    EngineHarness harness;
    FakeAgent* const agent = harness.AddAgent("a", 2);
    agent->readies_ranks = one.trains;
    const std::string job = harness.Submit("run", 2, 1);
    agent->obeys_stops = false;
    LASP_ASSERT_OK(harness.Suspend(job));
    harness.Exit(agent, *agent->Find(job, 0), one.exit_code);
    harness.Crash();
    ASSERT_EQ(harness.State(job), Job::STATE_SUSPENDING);
    agent->obeys_stops = true;
    harness.Connect(agent);
    ASSERT_EQ(harness.State(job), Job::STATE_SUSPENDED);
    EXPECT_THAT(harness.Get(job).message(), HasSubstr(one.told));
  }
}

}  // namespace
}  // namespace lasp::server
