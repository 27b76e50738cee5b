// Agents that fall silent, reconnect, start anew or are replaced, and what is theirs to say.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server/core/engine_harness.h"

namespace lasp::server {
namespace {

using ::lasp::testing::StatusIs;
using ::testing::Contains;
using ::testing::HasSubstr;

TEST(JobEngineAgentTest, TimeInWhichInputWasHeldBackCountsAgainstNobody) {
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

TEST(JobEngineAgentTest, AnAgentThatFallsSilentIsLostWithItsLease) {
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

TEST(JobEngineAgentTest, RanksHearWhichProtocolAllOfTheirGenerationSpeak) {
  for (const int oldest : {kMeetingProtocol - 1, kWorkerProtocol.newest}) {
    EngineHarness harness;
    FakeAgent* const before = harness.AddAgent("a", 1);
    before->newest_protocol = oldest;
    harness.RestartAgent(before);
    harness.AddAgent("b", 1);
    const std::string job = harness.Submit("run", 2, 1);
    ASSERT_EQ(harness.State(job), Job::STATE_RUNNING);
    int assignments = 0;
    for (const auto& [id, agent] : harness.agents) {
      for (const lasp::v1::ConnectResponse& message : agent->received) {
        if (message.has_assignment()) {
          ++assignments;
          EXPECT_EQ(message.assignment().peers_protocol_version(), oldest) << "agent " << id;
        }
      }
    }
    EXPECT_EQ(assignments, 2);
  }
}

TEST(JobEngineAgentTest, AnAgentStartedAnewHasLostItsRanks) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 2);
  const std::string job = harness.Submit("run", 2, 1);
  harness.RestartAgent(agent);
  EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
  EXPECT_EQ(harness.Get(job).generation(), 2);
  EXPECT_THAT(harness.TransitionReasons(job), Contains("AGENT_RESTARTED"));
  harness.ExpectSlotsAgree();
}

TEST(JobEngineAgentTest, AStreamThatBreaksCostsNothing) {
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

TEST(JobEngineAgentTest, AnExitTakenAwayWithTheStreamIsReportedAgain) {
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

TEST(JobEngineAgentTest, AnExitThatIsAnnouncedMayComeLate) {
  for (const bool crash : {false, true}) {
    EngineHarness harness;
    FakeAgent* agent = harness.AddAgent("a", 1);
    agent->obeys_stops = false;
    const std::string job = harness.Submit("run", 1, 1, /*max_restarts=*/0);
    ASSERT_EQ(harness.State(job), Job::STATE_RUNNING);
    if (crash) {
      harness.Crash();
    } else {
      harness.Disconnect(agent);
    }
    // It has ended, and steps go again before its exit does.
    const FakeRank rank = *agent->Find(job);
    agent->ranks[0].phase = lasp::v1::RankStatus::PHASE_STOPPING;
    harness.Connect(agent);
    agent->ranks.clear();
    harness.Advance(absl::Seconds(40));
    EXPECT_EQ(harness.State(job), Job::STATE_RUNNING);
    harness.Exit(agent, rank, kRankDone);
    EXPECT_EQ(harness.State(job), Job::STATE_SUCCEEDED);
    harness.ExpectSlotsAgree();
  }
}

TEST(JobEngineAgentTest, AnAnnouncedExitTakesNoSlotFromTheRankThatFollowed) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 1);
  const std::string first = harness.Submit("first", 1, 1);
  const FakeRank done = *agent->Find(first);
  harness.Exit(agent, done, kRankDone);
  const std::string second = harness.Submit("second", 1, 1);
  ASSERT_EQ(harness.State(second), Job::STATE_RUNNING);
  harness.Disconnect(agent);
  agent->obeys_stops = false;
  // It has not heard that the first one's exit is stored.
  agent->ranks.insert(agent->ranks.begin(), done);
  harness.Connect(agent);
  agent->ranks.erase(agent->ranks.begin(), agent->ranks.end() - 1);
  harness.ExpectSlotsAgree();
  harness.Exit(agent, done, kRankDone);
  harness.ExpectSlotsAgree();
  harness.Advance(absl::Seconds(10));
  EXPECT_EQ(harness.State(first), Job::STATE_SUCCEEDED);
  EXPECT_EQ(harness.State(second), Job::STATE_RUNNING);
  EXPECT_EQ(harness.Get(second).generation(), 1);
}

TEST(JobEngineAgentTest, AnAssignmentTakenAwayWithTheStreamIsSentAgain) {
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

TEST(JobEngineAgentTest, ARankThatIsHeardOfIsNotMissing) {
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

TEST(JobEngineAgentTest, MessagesOfAnOlderGenerationAreRefused) {
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

TEST(JobEngineAgentTest, ReportsAreAcknowledgedWhenTheyAreStored) {
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

TEST(JobEngineAgentTest, OnlyReportsAreAcknowledged) {
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

TEST(JobEngineAgentTest, ASecondAgentOfTheSameNameReplacesTheFirst) {
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
