// The log of events: what it holds, forgets and tells; and what the engine puts there.
#include "server/event_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "tests/server/core/engine_harness.h"
#include "tests/support/status_matchers.h"

namespace lasp::server {
namespace {

using ::lasp::testing::StatusIs;
using lasp::v1::Event;
using ::testing::_;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int64_t kAll = std::numeric_limits<int64_t>::max();

std::vector<Event> Made(const std::vector<int64_t>& sequences) {
  std::vector<Event> events;
  for (const int64_t sequence : sequences) {
    events.emplace_back().set_sequence(sequence);
  }
  return events;
}

std::vector<int64_t> Sequences(const std::vector<EventPtr>& events) {
  std::vector<int64_t> sequences;
  sequences.reserve(events.size());
  for (const EventPtr& event : events) {
    sequences.push_back(event->sequence());
  }
  return sequences;
}

TEST(EventLogTest, HoldsTheLatest) {
  EventLog log(3);
  EXPECT_THAT(log.Before(kAll), IsEmpty());
  log.Append(Made({2, 5, 7, 11}));
  EXPECT_THAT(Sequences(log.Before(kAll)), ElementsAre(5, 7, 11));
  EXPECT_THAT(Sequences(log.Before(11)), ElementsAre(5, 7));
  EXPECT_EQ(log.newest(), 11);
}

TEST(EventLogTest, AFollowerGetsEachOnceAndIsCalledOnlyWhenItFoundNothing) {
  EventLog log(100);
  log.Append(Made({1, 2}));
  int calls = 0;
  const auto follower = log.Subscribe(1, [&calls] { ++calls; });
  LASP_ASSERT_OK(follower);
  log.Append(Made({3}));
  EXPECT_EQ(calls, 0);
  EXPECT_THAT(Sequences(*(*follower)->Next(1)), ElementsAre(2));
  EXPECT_THAT(Sequences(*(*follower)->Next(10)), ElementsAre(3));
  EXPECT_THAT(*(*follower)->Next(10), IsEmpty());
  log.Append(Made({4}));
  log.Append(Made({5}));
  EXPECT_EQ(calls, 1);
  EXPECT_THAT(Sequences(*(*follower)->Next(10)), ElementsAre(4, 5));
  EXPECT_EQ(log.subscription_count(), 1U);
}

TEST(EventLogTest, AFollowerThatFallsBehindIsToldSo) {
  EventLog log(2);
  log.Append(Made({1}));
  const auto follower = log.Subscribe(1, [] {});
  LASP_ASSERT_OK(follower);
  log.Append(Made({2, 3}));
  EXPECT_THAT(Sequences(*(*follower)->Next(10)), ElementsAre(2, 3));
  log.Append(Made({4, 5, 6}));
  const auto lost = (*follower)->Next(10);
  EXPECT_THAT(lost, StatusIs(absl::StatusCode::kOutOfRange, _));
  EXPECT_EQ(ErrorReason(lost.status()), "RESUME_TOKEN_EXPIRED");
  EXPECT_THAT(log.Subscribe(3, [] {}), StatusIs(absl::StatusCode::kOutOfRange, _));
  EXPECT_THAT(log.Subscribe(7, [] {}), StatusIs(absl::StatusCode::kOutOfRange, _));
  LASP_EXPECT_OK(log.Subscribe(4, [] {}));
}

TEST(EventLogTest, KnowsWhetherARestartLeftSomethingOut) {
  EventLog whole(2);
  whole.Restore(Made({10, 20}), 100, /*complete=*/true);
  EXPECT_EQ(whole.newest(), 100);
  LASP_EXPECT_OK(whole.Subscribe(0, [] {}));
  EventLog part(2);
  part.Restore(Made({10, 20}), 100, /*complete=*/false);
  EXPECT_THAT(part.Subscribe(8, [] {}), StatusIs(absl::StatusCode::kOutOfRange, _));
  LASP_EXPECT_OK(part.Subscribe(9, [] {}));
  // One more than it holds.
  EventLog more(2);
  more.Restore(Made({10, 20, 30}), 100, /*complete=*/true);
  EXPECT_THAT(Sequences(more.Before(kAll)), ElementsAre(20, 30));
  EXPECT_THAT(more.Subscribe(9, [] {}), StatusIs(absl::StatusCode::kOutOfRange, _));
}

// `subject reason to_state severity` of each.
std::vector<std::string> Told(const EngineHarness& harness) {
  std::vector<std::string> told;
  int64_t last = 0;
  for (const EventPtr& event : harness.events->Before(kAll)) {
    EXPECT_GT(event->sequence(), last);
    last = event->sequence();
    EXPECT_GT(event->time().seconds(), 0);
    EXPECT_FALSE(event->actor().empty());
    told.push_back(absl::StrCat(event->subject().substr(event->subject().rfind('/') + 1), " ",
                                event->from_state(), ">", event->to_state(), " ", event->reason(),
                                event->severity() == Event::SEVERITY_WARNING ? " !" : ""));
  }
  return told;
}

TEST(EngineEventsTest, TellOfJobsAndWorkersInOrder) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("host", 1);
  const std::string job = harness.Submit("job");
  harness.Exit(agent, *agent->Find(job), 10);
  harness.Advance(absl::Seconds(2));
  EXPECT_THAT(
      Told(harness),
      ElementsAre("host >READY REGISTERED", "job >QUEUED SUBMITTED",
                  "job QUEUED>STARTING SCHEDULED", "job STARTING>RUNNING TRAINING",
                  "job RUNNING>RECOVERING RANK_FAILED !",
                  "job RECOVERING>STARTING RESTARTED_FROM_START", "job STARTING>RUNNING TRAINING"));
}

TEST(EngineEventsTest, TellOfAWorkersDrainLossAndReturn) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("host", 1);
  LASP_EXPECT_OK(harness.Drain("host"));
  LASP_EXPECT_OK(harness.Drain("host"));  // a second wish changes nothing
  LASP_EXPECT_OK(harness.Drain("host", /*undo=*/true));
  harness.Disconnect(agent);
  harness.Advance(absl::Seconds(8));
  harness.Connect(agent);
  EXPECT_THAT(Told(harness),
              ElementsAre("host >READY REGISTERED", "host READY>DRAINED DRAIN_REQUESTED",
                          "host DRAINED>READY DRAIN_UNDONE", "host READY>READY DISCONNECTED !",
                          "host READY>LOST AGENT_LOST !", "host LOST>READY RECONNECTED"));
}

TEST(EngineEventsTest, ADrainedWorkerIsToldWhenItsLastRankHasLeft) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("host", 1);
  const std::string job = harness.Submit("job");
  LASP_EXPECT_OK(harness.Drain("host"));
  while (agent->Find(job) != nullptr) {
    harness.Exit(agent, *agent->Find(job), 13);
  }
  const std::vector<std::string> told = Told(harness);
  EXPECT_THAT(told, ::testing::Contains("host READY>DRAINING DRAIN_REQUESTED"));
  EXPECT_THAT(told, ::testing::Contains("host DRAINING>DRAINED DRAINED"));
  EXPECT_THAT(told, ::testing::Contains("job RUNNING>RECOVERING WORKER_DRAINED"));
}

TEST(EngineEventsTest, ARestartKeepsThoseOfJobs) {
  CoreOptions options;
  options.event_history = 4;
  EngineHarness harness(options);
  harness.AddAgent("host", 1);
  harness.Submit("a");
  harness.Submit("b");
  const int64_t newest = harness.events->newest();
  harness.Crash();
  EXPECT_THAT(Told(harness), ElementsAre("a >QUEUED SUBMITTED", "a QUEUED>STARTING SCHEDULED",
                                         "a STARTING>RUNNING TRAINING", "b >QUEUED SUBMITTED"));
  EXPECT_GE(harness.events->newest(), newest);
  // It is the coordinator that was away: nothing has happened to the agent.
  harness.Connect(harness.agents["host"].get());
  EXPECT_EQ(harness.events->Before(kAll).back()->subject(), EngineHarness::Name("b"));
  LASP_EXPECT_OK(harness.events->Subscribe(newest, [] {}));
}

TEST(EngineEventsTest, ADeletionIsTheLast) {
  EngineHarness harness;
  const std::string job = harness.Submit("job");
  LASP_EXPECT_OK(harness.Cancel(job));
  LASP_EXPECT_OK(harness.Delete(job));
  EXPECT_THAT(Told(harness), ElementsAre("job >QUEUED SUBMITTED", "job QUEUED>CANCELLED CANCELLED",
                                         "job CANCELLED> DELETED"));
}

TEST(SlotWaitTest, SaysWhatTheSchedulerDecided) {
  EngineHarness harness;
  FakeAgent* agent = harness.AddAgent("a", 2);
  harness.AddAgent("b", 2);
  harness.Submit("runs", 1, 2);
  const std::string first = harness.Submit("first", 3, 1);
  const std::string second = harness.Submit("second", 1, 1);
  const std::string huge = harness.Submit("huge", 5, 1);
  harness.Advance(absl::Seconds(2));
  const auto wait = harness.Get(first).slot_wait();
  EXPECT_EQ(wait.needed_slots(), 3);
  EXPECT_EQ(wait.free_slots(), 2);
  EXPECT_EQ(wait.busy_slots(), 2);
  EXPECT_EQ(wait.away_slots(), 0);
  EXPECT_EQ(wait.position(), 1);
  EXPECT_EQ(wait.device(), lasp::v1::TrainingSpec::DEVICE_CPU);
  EXPECT_EQ(harness.Get(second).slot_wait().position(), 2);
  EXPECT_EQ(harness.Get(huge).reason(), "NO_CAPACITY");
  EXPECT_FALSE(harness.Get(EngineHarness::Name("runs")).has_slot_wait());

  LASP_EXPECT_OK(harness.Drain("b"));
  harness.Advance(absl::Seconds(2));
  const auto drained = harness.Get(first).slot_wait();
  EXPECT_EQ(drained.free_slots() + drained.busy_slots() + drained.away_slots(), 4);
  EXPECT_EQ(drained.away_slots(), 2);
  LASP_EXPECT_OK(harness.Cancel(first));
  EXPECT_FALSE(harness.Get(first).has_slot_wait());
  ASSERT_NE(agent, nullptr);
}

TEST(SlotWaitTest, SaysWhenAFailedJobStartsAgain) {
  CoreOptions options;
  options.restart_backoff = absl::Seconds(20);
  EngineHarness harness(options);
  FakeAgent* agent = harness.AddAgent("a", 1);
  const std::string job = harness.Submit("job");
  harness.Exit(agent, *agent->Find(job), 10);  // the first restart comes at once
  harness.Exit(agent, *agent->Find(job), 10);
  harness.Advance(absl::Seconds(3));
  ASSERT_EQ(harness.State(job), Job::STATE_RECOVERING);
  const auto wait = harness.Get(job).slot_wait();
  ASSERT_TRUE(wait.has_earliest_start_time());
  EXPECT_NEAR(static_cast<double>(wait.earliest_start_time().seconds()),
              static_cast<double>(absl::ToUnixSeconds(harness.clock.Now()) + 17), 1.5);
  harness.Advance(absl::Seconds(20));
  EXPECT_FALSE(harness.Get(job).has_slot_wait());
}

}  // namespace
}  // namespace lasp::server
