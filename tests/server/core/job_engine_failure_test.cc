// Ranks that fail, hang or vanish: restarts, backoff, budget, causes and deadlines.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server/core/engine_harness.h"

namespace lasp::server {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(JobEngineFailureTest, ARankThatFailsRestartsTheJobAtOnceThenWithBackoff) {
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

TEST(JobEngineFailureTest, TheBudgetEndsInTheCause) {
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

TEST(JobEngineFailureTest, ARankThatBlamesAPeerIsNotTheCause) {
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

TEST(JobEngineFailureTest, AFailureIsNotForgottenOverARestart) {
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

TEST(JobEngineFailureTest, SomeExitsEndTheJobAtOnce) {
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

TEST(JobEngineFailureTest, TheLastStepsBeforeAFailureForGoodAreKept) {
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

TEST(JobEngineFailureTest, ASuspectHostIsAvoidedWhereItCan) {
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

TEST(JobEngineFailureTest, ARankThatVanishedWithoutAWordIsLost) {
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

TEST(JobEngineFailureTest, SlotsOfADyingGenerationAreNotUsedAgain) {
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

TEST(JobEngineFailureTest, PhasesOfTheStartHaveDeadlines) {
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

TEST(JobEngineFailureTest, ARankThatDoesNotEndWithTheOthersFailsTheGeneration) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 2);
  const std::string job = harness.Submit("run", 2, 1, /*max_restarts=*/0);
  harness.Exit(agent, *agent->Find(job, 0), kRankDone);
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
  harness.Advance(absl::Seconds(61));
  EXPECT_EQ(harness.State(job), Job::STATE_FAILED);
  EXPECT_THAT(harness.Get(job).message(), HasSubstr("did not end with the others: 1 on a"));
}

}  // namespace
}  // namespace lasp::server
