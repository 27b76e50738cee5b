// Every path of a job's life, with agents that obey, die, hang and come back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "proto/rpc/error_details.h"
#include "tests/server/core/engine_harness.h"

namespace lasp::server {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::Contains;
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
  EXPECT_EQ(harness.Get(waits).message(), "needs 4 slots, 3 of 6 free");
  EXPECT_EQ(harness.Get(behind).reason(), "WAITING_FOR_TURN");
  EXPECT_THAT(harness.Get(behind).message(), HasSubstr("1 job before it"));
  EXPECT_EQ(harness.Get(huge).reason(), "NO_CAPACITY");
  EXPECT_EQ(harness.Get(huge).message(), "needs 8 slots, the cluster has 6");
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

TEST(JobEngineTest, ARankThatFailsRestartsTheJobAtOnceThenWithBackoff) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 2);
  const std::string job = harness.Submit("run", 2, 1);
  harness.Exit(agent, *agent->Find(job, 1), 128 + 9);
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
  EXPECT_EQ(harness.Get(job).generation(), 2);
  EXPECT_EQ(harness.Get(job).restart_count(), 1);
  EXPECT_THAT(harness.TransitionReasons(job),
              ElementsAre("SUBMITTED", "SCHEDULED", "TRAINING", "RANK_KILLED",
                          "RESTARTED_FROM_START", "TRAINING"));
  harness.Exit(agent, *agent->Find(job, 0), 1);
  EXPECT_EQ(harness.State(job), Job::STATE_RECOVERING);
  harness.Advance(absl::Milliseconds(800));
  EXPECT_EQ(harness.State(job), Job::STATE_RECOVERING);
  harness.Advance(absl::Milliseconds(400));
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
  EXPECT_EQ(harness.Get(job).generation(), 3);
  harness.Exit(agent, *agent->Find(job, 0), 1);
  harness.Advance(absl::Milliseconds(1800));
  EXPECT_EQ(harness.State(job), Job::STATE_RECOVERING);
  harness.Advance(absl::Milliseconds(400));
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
  harness.ExpectSlotsAgree();
}

TEST(JobEngineTest, TheBudgetEndsInTheCause) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 1);
  const std::string job = harness.Submit("run", 1, 1, /*max_restarts=*/2);
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(harness.State(job), Job::STATE_RUNNING) << i;
    harness.Exit(agent, *agent->Find(job), kRankRetry, "mesh broke");
    harness.Advance(absl::Seconds(3));
  }
  EXPECT_EQ(harness.State(job), Job::STATE_FAILED);
  EXPECT_EQ(harness.Get(job).reason(), "RESTARTS_EXHAUSTED");
  EXPECT_THAT(harness.Get(job).message(), HasSubstr("restarted 2 times"));
  EXPECT_THAT(harness.Get(job).message(), HasSubstr("mesh broke"));
  EXPECT_EQ(harness.Get(job).error().message(), "mesh broke");
  EXPECT_EQ(harness.Get(job).restart_count(), 2);
}

TEST(JobEngineTest, ARankThatBlamesAPeerIsNotTheCause) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 3);
  const std::string job = harness.Submit("run", 3, 1, /*max_restarts=*/0);
  harness.Exit(agent, *agent->Find(job, 2), kRankRetry, "connection closed by rank 1");
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
  harness.Advance(absl::Milliseconds(200));
  harness.Exit(agent, *agent->Find(job, 1), 128 + 9);
  EXPECT_EQ(harness.State(job), Job::STATE_FAILED);
  EXPECT_THAT(harness.Get(job).message(), HasSubstr("rank 1 on workers/a was ended by signal 9"));

  // Where nobody tells more, it is believed: after a moment, and also when all blame each other.
  EngineHarness second;
  agent = second.AddAgent("a", 2);
  second.Submit("run", 2, 1, /*max_restarts=*/1);
  second.Exit(agent, *agent->Find(job, 1), kRankRetry, "connection closed by rank 0");
  EXPECT_EQ(second.State(job), Job::STATE_RUNNING);
  second.Advance(absl::Milliseconds(600));
  EXPECT_EQ(second.Get(job).generation(), 2);
  EXPECT_EQ(second.State(job), Job::STATE_RUNNING);
  second.Exit(agent, *agent->Find(job, 1), kRankRetry, "connection closed by rank 0");
  second.Exit(agent, *agent->Find(job, 0), kRankRetry, "connection closed by rank 1");
  EXPECT_EQ(second.State(job), Job::STATE_FAILED);
  EXPECT_THAT(second.Get(job).message(), HasSubstr("connection closed by rank 0"));

  // Also when the others say nothing but that they are done.
  EngineHarness third;
  agent = third.AddAgent("a", 2);
  third.Submit("run", 2, 1, /*max_restarts=*/0);
  third.Exit(agent, *agent->Find(job, 1), kRankRetry, "connection closed by rank 0");
  third.Exit(agent, *agent->Find(job, 0), kRankDone);
  EXPECT_EQ(third.State(job), Job::STATE_FAILED);
}

TEST(JobEngineTest, AFailureIsNotForgottenOverARestart) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 2);
  const std::string job = harness.Submit("run", 2, 1, /*max_restarts=*/0);
  harness.Exit(agent, *agent->Find(job, 1), kRankRetry);
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
  harness.Crash();
  harness.Connect(agent);
  harness.Advance(absl::Seconds(31));
  EXPECT_EQ(harness.State(job), Job::STATE_FAILED);
  EXPECT_THAT(harness.Get(job).message(), HasSubstr("rank 1 on workers/a exited with 10"));
}

TEST(JobEngineTest, SomeExitsEndTheJobAtOnce) {
  for (const auto& [code, reason] : {std::pair{kRankWrongConfiguration, "WRONG_CONFIGURATION"},
                                     std::pair{kRankDoNotRequeue, "DO_NOT_REQUEUE"}}) {
    EngineHarness harness;
    FakeAgent* a = harness.AddAgent("a", 1);
    FakeAgent* b = harness.AddAgent("b", 1);
    const std::string job = harness.Submit("run", 2, 1);
    harness.Exit(a, *a->Find(job), code, "corpus.txt: gone");
    EXPECT_EQ(harness.State(job), Job::STATE_FAILED);
    EXPECT_EQ(harness.Get(job).reason(), reason);
    EXPECT_EQ(harness.Get(job).error().message(), "corpus.txt: gone");
    EXPECT_EQ(harness.Get(job).generation(), 1);
    EXPECT_TRUE(b->ranks.empty());
    harness.ExpectSlotsAgree();
  }
}

TEST(JobEngineTest, TheLastStepsBeforeAFailureForGoodAreKept) {
  EngineHarness harness;
  FakeAgent* a = harness.AddAgent("a", 1);
  FakeAgent* b = harness.AddAgent("b", 1);
  const std::string job = harness.Submit("run", 2, 1);
  const FakeRank first = a->ranks.empty() ? b->ranks.front() : a->ranks.front();
  FakeAgent* reporter = first.fence.rank() == 0 ? a : b;
  FakeAgent* other = reporter == a ? b : a;
  const FakeRank zero = *reporter->Find(job, 0);
  harness.Report(reporter, zero, 1, 3);
  harness.Exit(other, *other->Find(job), kRankWrongConfiguration, "the loss is not finite");
  ASSERT_EQ(harness.State(job), Job::STATE_FAILED);
  harness.Report(reporter, zero, 4, 5);
  EXPECT_EQ(harness.store->CountSteps(harness.jobs->Find(job)->id, 1, 0).value(), 5);
  EXPECT_EQ(harness.Get(job).progress().step(), 5);
  // Nobody else may add to it: not another rank's agent, not an older generation.
  FakeRank forged = zero;
  harness.Report(other, forged, 6, 6);
  forged.fence.set_generation(0);
  harness.Report(reporter, forged, 7, 7);
  EXPECT_EQ(harness.store->CountSteps(harness.jobs->Find(job)->id, 1, 0).value(), 5);
}

TEST(JobEngineTest, TimeInWhichInputWasHeldBackCountsAgainstNobody) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 1);
  agent->readies_ranks = false;
  const std::string job = harness.Submit("run");
  ASSERT_EQ(harness.State(job), Job::STATE_STARTING);
  harness.leases->RenewAll();
  harness.engine->Postpone(absl::Minutes(10));
  for (int i = 0; i < 75; ++i) {
    harness.leases->RenewAll();
    harness.Advance(absl::Seconds(5));
  }
  EXPECT_EQ(harness.Get(job).generation(), 1);
  EXPECT_EQ(harness.State(job), Job::STATE_STARTING);
}

TEST(JobEngineTest, ASuspectHostIsAvoidedWhereItCan) {
  EngineHarness harness;
  harness.AddAgent("a", 1);
  harness.AddAgent("b", 1);
  const std::string job = harness.Submit("run", 1, 1);
  const std::string first = harness.Get(job).placements(0).worker();
  FakeAgent* agent = harness.agents.at(first.substr(8)).get();
  harness.Exit(agent, *agent->Find(job), kRankSuspectHost);
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
  EXPECT_NE(harness.Get(job).placements(0).worker(), first);
}

TEST(JobEngineTest, AnAgentThatFallsSilentIsLostWithItsLease) {
  EngineHarness harness;
  FakeAgent* a = harness.AddAgent("a", 1);
  harness.AddAgent("b", 1);
  harness.AddAgent("c", 1);
  const std::string job = harness.Submit("run", 2, 1);
  FakeAgent* silent = a->Find(job) != nullptr ? a : harness.agents.at("b").get();
  harness.Disconnect(silent);
  // Three heartbeats late; well within the ten seconds in which users are promised to hear of it.
  harness.Advance(absl::Milliseconds(6'800));
  EXPECT_EQ(harness.Get(job).generation(), 1);
  harness.Advance(absl::Milliseconds(600));
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
  EXPECT_EQ(harness.Get(job).generation(), 2);
  EXPECT_THAT(harness.TransitionReasons(job), Contains("AGENT_LOST"));
  EXPECT_EQ(harness.workers->Find(silent->id)->worker.state(), lasp::v1::Worker::STATE_LOST);
  // It comes back with a rank of the old generation, which is stopped; its slot is free then.
  silent->obeys_stops = true;
  harness.Connect(silent);
  EXPECT_TRUE(silent->ranks.empty());
  EXPECT_EQ(silent->received.back().has_ack() || silent->received.back().has_stop(), true);
  EXPECT_EQ(harness.workers->Find(silent->id)->worker.state(), lasp::v1::Worker::STATE_READY);
  harness.ExpectSlotsAgree();
}

TEST(JobEngineTest, AnAgentStartedAnewHasLostItsRanks) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 2);
  const std::string job = harness.Submit("run", 2, 1);
  harness.RestartAgent(agent);
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
  EXPECT_EQ(harness.Get(job).generation(), 2);
  EXPECT_THAT(harness.TransitionReasons(job), Contains("AGENT_RESTARTED"));
  harness.ExpectSlotsAgree();
}

TEST(JobEngineTest, AStreamThatBreaksCostsNothing) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 2);
  const std::string job = harness.Submit("run", 2, 1);
  harness.Disconnect(agent);
  harness.Advance(absl::Seconds(5));
  harness.Connect(agent);
  harness.Advance(absl::Seconds(20));
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
  EXPECT_EQ(harness.Get(job).generation(), 1);
  EXPECT_EQ(agent->Count(lasp::v1::ConnectResponse::kLogPosition), 2);
}

TEST(JobEngineTest, AnExitTakenAwayWithTheStreamIsReportedAgain) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 1);
  const std::string job = harness.Submit("run", 1, 1);
  harness.Disconnect(agent);
  const FakeRank rank = *agent->Find(job);
  agent->ranks.clear();
  harness.Connect(agent);
  harness.Advance(absl::Seconds(1));
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
  harness.Exit(agent, rank, kRankDone);
  EXPECT_EQ(harness.State(job), Job::STATE_SUCCEEDED);
}

TEST(JobEngineTest, ARankThatVanishedWithoutAWordIsLost) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 1);
  const std::string job = harness.Submit("run", 1, 1);
  harness.Disconnect(agent);
  agent->ranks.clear();
  harness.Connect(agent);
  harness.Advance(absl::Seconds(4));
  EXPECT_EQ(harness.Get(job).generation(), 2);
  EXPECT_THAT(harness.TransitionReasons(job), Contains("RANK_LOST"));
  harness.ExpectSlotsAgree();
}

TEST(JobEngineTest, AnAssignmentTakenAwayWithTheStreamIsSentAgain) {
  for (const bool crash : {false, true}) {
    EngineHarness harness;
    FakeAgent* agent = harness.AddAgent("a", 2);
    agent->starts_ranks = false;
    const std::string job = harness.Submit("run", 2, 1, /*max_restarts=*/0);
    ASSERT_EQ(harness.State(job), Job::STATE_STARTING);
    if (crash) {
      harness.Crash();
    } else {
      harness.Disconnect(agent);
    }
    agent->starts_ranks = true;
    harness.Connect(agent);
    EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
    harness.Advance(absl::Seconds(31));
    EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
    EXPECT_EQ(harness.Get(job).generation(), 1);
    harness.ExpectSlotsAgree();
  }
}

TEST(JobEngineTest, ARankThatIsHeardOfIsNotMissing) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 1);
  const std::string job = harness.Submit("run", 1, 1);
  harness.Disconnect(agent);
  const std::vector<FakeRank> ranks = std::exchange(agent->ranks, {});
  harness.Connect(agent);
  agent->ranks = ranks;
  lasp::v1::ConnectRequest message;
  auto* status = message.mutable_heartbeat()->add_ranks();
  *status->mutable_fence() = ranks[0].fence;
  status->set_phase(lasp::v1::RankStatus::PHASE_TRAINING);
  harness.Deliver(agent, message);
  harness.Advance(absl::Seconds(5));
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
  EXPECT_EQ(harness.Get(job).generation(), 1);
}

TEST(JobEngineTest, SlotsOfADyingGenerationAreNotUsedAgain) {
  EngineHarness harness;
  FakeAgent* a = harness.AddAgent("a", 1);
  FakeAgent* b = harness.AddAgent("b", 1);
  const std::string job = harness.Submit("run", 2, 1);
  const std::string next = harness.Submit("next", 1, 1);
  b->obeys_stops = false;
  harness.Exit(a, *a->Find(job), 128 + 6);
  // Rank 1 does not die: no new generation, and its slots are kept for it from the queue.
  harness.Advance(absl::Seconds(7));
  EXPECT_EQ(harness.State(job), Job::STATE_RECOVERING);
  EXPECT_EQ(harness.State(next), Job::STATE_QUEUED);
  EXPECT_EQ(b->ranks.size(), 1);
  b->obeys_stops = true;
  harness.Exit(b, *b->Find(job), 128 + 9);
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
  EXPECT_EQ(harness.Get(job).generation(), 2);
}

TEST(JobEngineTest, PhasesOfTheStartHaveDeadlines) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 1);
  agent->starts_ranks = false;
  const std::string job = harness.Submit("run", 1, 1, /*max_restarts=*/0);
  harness.Advance(absl::Seconds(59));
  EXPECT_EQ(harness.State(job), Job::STATE_STARTING);
  harness.Advance(absl::Seconds(2));
  EXPECT_EQ(harness.State(job), Job::STATE_FAILED);
  EXPECT_THAT(harness.Get(job).message(), HasSubstr("did not start in time: 0 on a"));

  EngineHarness second;
  agent = second.AddAgent("a", 1);
  agent->readies_ranks = false;
  second.Submit("run", 1, 1, /*max_restarts=*/0);
  second.Advance(absl::Seconds(119));
  EXPECT_EQ(second.State(job), Job::STATE_STARTING);
  second.Advance(absl::Seconds(2));
  EXPECT_EQ(second.State(job), Job::STATE_FAILED);
  EXPECT_THAT(second.Get(job).message(), HasSubstr("did not become ready in time"));
  EXPECT_TRUE(agent->ranks.empty());
}

TEST(JobEngineTest, ARankThatDoesNotEndWithTheOthersFailsTheGeneration) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 2);
  const std::string job = harness.Submit("run", 2, 1, /*max_restarts=*/0);
  harness.Exit(agent, *agent->Find(job, 0), kRankDone);
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
  harness.Advance(absl::Seconds(61));
  EXPECT_EQ(harness.State(job), Job::STATE_FAILED);
  EXPECT_THAT(harness.Get(job).message(), HasSubstr("did not end with the others: 1 on a"));
}

TEST(JobEngineTest, ARestartOfTheCoordinatorExcusesNoRankFromEnding) {
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

TEST(JobEngineTest, WhatLaterStepsDoNotTellSurvivesARestart) {
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

// A job brought into a state with ranks or without, for tests of commands.
std::string BringTo(EngineHarness* harness, FakeAgent* agent, Job::State state) {
  agent->readies_ranks = state != Job::STATE_STARTING;
  const std::string job = harness->Submit("run", 1, 2);
  switch (state) {
    case Job::STATE_QUEUED:
      break;
    case Job::STATE_RECOVERING: {
      const FakeRank rank = *agent->Find(job, 0);
      harness->Exit(agent, rank, 1);
      harness->Exit(agent, *agent->Find(job, 0), 1);
      break;
    }
    case Job::STATE_SUSPENDED:
      LASP_EXPECT_OK(harness->Suspend(job));
      break;
    case Job::STATE_SUSPENDING:
      agent->obeys_stops = false;
      LASP_EXPECT_OK(harness->Suspend(job));
      break;
    case Job::STATE_CANCELLING:
      agent->obeys_stops = false;
      LASP_EXPECT_OK(harness->Cancel(job));
      break;
    case Job::STATE_SUCCEEDED:
      harness->ExitAll(job, kRankDone);
      break;
    case Job::STATE_FAILED:
      harness->Exit(agent, *agent->Find(job, 0), kRankWrongConfiguration);
      break;
    case Job::STATE_CANCELLED:
      LASP_EXPECT_OK(harness->Cancel(job));
      break;
    default:
      break;
  }
  EXPECT_EQ(harness->State(job), state);
  return job;
}

constexpr Job::State kAllStates[] = {
    Job::STATE_QUEUED,     Job::STATE_STARTING,  Job::STATE_RUNNING,    Job::STATE_RECOVERING,
    Job::STATE_SUSPENDING, Job::STATE_SUSPENDED, Job::STATE_CANCELLING, Job::STATE_SUCCEEDED,
    Job::STATE_FAILED,     Job::STATE_CANCELLED};

TEST(JobEngineTest, CancelInEveryState) {
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

TEST(JobEngineTest, SuspendInEveryState) {
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

TEST(JobEngineTest, ResumeStartsASuspendedJobAgain) {
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

TEST(JobEngineTest, AJobThatEndsWhileItIsSuspendedHasSucceeded) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 2);
  const std::string job = BringTo(&harness, agent, Job::STATE_SUSPENDING);
  harness.ExitAll(job, kRankDone);
  EXPECT_EQ(harness.State(job), Job::STATE_SUCCEEDED);
}

TEST(JobEngineTest, ASuspensionThatTakesTooLongBecomesAKilling) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 2);
  const std::string job = BringTo(&harness, agent, Job::STATE_SUSPENDING);
  EXPECT_EQ(agent->received.back().stop().mode(), lasp::v1::Stop::MODE_DRAIN);
  agent->obeys_stops = true;
  harness.Advance(absl::Seconds(126));
  EXPECT_EQ(agent->ranks.size(), 0);
  EXPECT_EQ(harness.State(job), Job::STATE_SUSPENDED);
}

TEST(JobEngineTest, DrainingAWorkerMovesItsJobsWithoutTouchingTheirBudget) {
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

TEST(JobEngineTest, AnAgentThatDrainsItselfMovesItsJobs) {
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

TEST(JobEngineTest, ARankThatWasDrainedCostsNoRestartWhoeverDrainedIt) {
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

TEST(JobEngineTest, MessagesOfAnOlderGenerationAreRefused) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 1);
  const std::string job = harness.Submit("run", 1, 1);
  const FakeRank old = *agent->Find(job);
  harness.Exit(agent, old, kRankRetry);
  ASSERT_EQ(harness.Get(job).generation(), 2);
  agent->received.clear();
  harness.Report(agent, old, 1, 3);
  ASSERT_EQ(agent->Count(lasp::v1::ConnectResponse::kStop), 1);
  for (const auto& message : agent->received) {
    if (message.has_stop()) {
      EXPECT_EQ(message.stop().reason(), "STALE_GENERATION");
      EXPECT_EQ(message.stop().fence().generation(), 1);
    }
  }
  const JobViewPtr view = harness.jobs->Find(job);
  EXPECT_EQ(harness.store->CountSteps(view->id, 1, 0).value(), 0);
  // A second word about its exit changes nothing either.
  harness.Exit(agent, old, kRankWrongConfiguration);
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
}

TEST(JobEngineTest, ReportsAreAcknowledgedWhenTheyAreStored) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 1);
  const std::string job = harness.Submit("run", 1, 1);
  lasp::v1::ConnectRequest message;
  *message.mutable_step_reports()->mutable_fence() = agent->Find(job)->fence;
  message.mutable_step_reports()->add_steps()->set_step(1);
  harness.Deliver(agent, message);
  agent->received.clear();
  EXPECT_TRUE(agent->link->messages.empty());
  harness.Pump();
  ASSERT_FALSE(agent->received.empty());
  EXPECT_EQ(agent->received.back().acked_sequence(), agent->sequence);
  EXPECT_EQ(harness.store->CountSteps(harness.jobs->Find(job)->id, 1, 0).value(), 1);
}

TEST(JobEngineTest, OnlyReportsAreAcknowledged) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 2);
  const std::string job = harness.Submit("run", 2, 1);
  ASSERT_EQ(harness.State(job), Job::STATE_RUNNING);
  // Addresses and readiness may overtake reports that go again.
  for (const auto& message : agent->received) {
    EXPECT_EQ(message.acked_sequence(), 0) << message.ShortDebugString();
  }
  harness.Report(agent, *agent->Find(job, 0), 1, 3);
  const int64_t reported = agent->sequence;
  ASSERT_EQ(agent->received.back().acked_sequence(), reported);
  lasp::v1::ConnectRequest draining;
  draining.mutable_draining();
  agent->obeys_stops = false;
  harness.Deliver(agent, draining);
  harness.Pump();
  for (const auto& message : agent->received) {
    EXPECT_LE(message.acked_sequence(), reported) << message.ShortDebugString();
  }
}

TEST(JobEngineTest, ARestartedCoordinatorAdoptsRunningRanks) {
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

TEST(JobEngineTest, RanksThatEndedWhileTheCoordinatorWasAwayCount) {
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

TEST(JobEngineTest, RanksThatDoNotComeBackAfterARestartAreGivenUp) {
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

TEST(JobEngineTest, ACancelIsCarriedOutAfterARestart) {
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

TEST(JobEngineTest, AStartInterruptedByARestartGoesOn) {
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

TEST(JobEngineTest, TheQueueKeepsItsOrderOverARestart) {
  EngineHarness harness;
  harness.AddAgent("a", 2);
  const std::string running = harness.Submit("running", 1, 1);
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
  LASP_EXPECT_OK(
      harness.Call([&](const JobCallback& done) { harness.engine->Update(update, done); }));
  EXPECT_EQ(harness.Get(job).display_name(), "new");
  EXPECT_TRUE(harness.Get(job).labels().empty());
  EXPECT_THAT(harness.Call([&](const JobCallback& done) { harness.engine->Update(update, done); }),
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

TEST(JobEngineTest, ASecondAgentOfTheSameNameReplacesTheFirst) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 1);
  const auto old_link = agent->link;
  agent->incarnation = "second";
  harness.Connect(agent);
  ASSERT_TRUE(old_link->closed.has_value());
  EXPECT_THAT(*old_link->closed, StatusIs(absl::StatusCode::kAborted, HasSubstr("worker_id")));
}

}  // namespace
}  // namespace lasp::server
