// Generations that hang, slow ranks, steps that went wrong, hosts that fail often.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "proto/rpc/error_details.h"
#include "proto/rpc/proto_time.h"
#include "proto/rpc/rank_exit_code.h"
#include "tests/server/core/engine_harness.h"

namespace lasp::server {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Property;

// What a rank says of itself.
struct Said {
  absl::Duration idle;
  absl::Duration silence;
  absl::Duration limit = absl::Seconds(20);
  double busy = 0;
};

class JobEngineProgressTest : public ::testing::Test {
 protected:
  void SetUp() override {
    agent_ = harness_.AddAgent("host", 2);
    job_ = harness_.Submit("job", 2, 1);
    ASSERT_EQ(harness_.State(job_), Job::STATE_RUNNING);
  }

  // One heartbeat; two seconds later.
  void Beat(const Said& first, const Said& second) {
    harness_.Advance(absl::Seconds(2));
    lasp::v1::ConnectRequest message;
    int rank = 0;
    for (const Said& said : {first, second}) {
      const FakeRank* const found = agent_->Find(job_, rank++);
      if (found == nullptr) {
        continue;
      }
      auto* const status = message.mutable_heartbeat()->add_ranks();
      *status->mutable_fence() = found->fence;
      status->set_phase(lasp::v1::RankStatus::PHASE_TRAINING);
      auto* const progress = status->mutable_progress();
      *progress->mutable_idle() = ToProtoDuration(said.idle);
      *progress->mutable_silence() = ToProtoDuration(said.silence);
      if (said.limit < absl::InfiniteDuration()) {
        *progress->mutable_limit() = ToProtoDuration(said.limit);
      }
      progress->set_busy_step_seconds(said.busy);
      auto* const group = progress->add_groups();
      group->set_group("world");
      group->set_awaited(true);
      group->set_operation("all-reduce");
      group->set_begun(7);
      group->set_peer(rank == 1 ? 1 : 0);
    }
    harness_.Deliver(agent_, std::move(message));
    harness_.Pump();
  }

  std::vector<std::string> Reasons() const { return harness_.TransitionReasons(job_); }

  std::vector<std::string> EventReasons() const {
    std::vector<std::string> reasons;
    for (const EventPtr& event : harness_.events->Before(std::numeric_limits<int64_t>::max())) {
      reasons.push_back(event->reason());
    }
    return reasons;
  }

  EngineHarness harness_;
  FakeAgent* agent_ = nullptr;
  std::string job_;
};

constexpr absl::Duration kNow = absl::Milliseconds(300);

TEST_F(JobEngineProgressTest, AJobThatHangsIsEndedWithinTheLimitAndItsRanksSayWhereTheyWere) {
  agent_->obeys_stops = false;
  for (int seconds = 2; seconds <= 14; seconds += 2) {
    Beat({.idle = absl::Seconds(seconds), .silence = kNow},
         {.idle = absl::Seconds(seconds), .silence = kNow});
    ASSERT_EQ(harness_.State(job_), Job::STATE_RUNNING) << seconds;
  }
  Beat({.idle = absl::Seconds(16), .silence = kNow}, {.idle = absl::Seconds(16), .silence = kNow});
  EXPECT_EQ(harness_.State(job_), Job::STATE_RECOVERING);
  EXPECT_THAT(Reasons(), Contains("RANK_STALLED"));
  for (const auto& message : agent_->received) {
    if (message.has_stop()) {
      EXPECT_TRUE(message.stop().dump());
      EXPECT_NE(message.stop().mode(), lasp::v1::Stop::MODE_DRAIN);
    }
  }
  EXPECT_GE(agent_->Count(lasp::v1::ConnectResponse::kStop), 2);
}

TEST_F(JobEngineProgressTest, LongStepsHaveALongerLimit) {
  const absl::Duration limit = absl::Minutes(10);
  for (int seconds = 2; seconds <= 60; seconds += 2) {
    Beat({.idle = absl::Seconds(seconds), .silence = kNow, .limit = limit},
         {.idle = absl::Seconds(seconds), .silence = kNow, .limit = limit});
  }
  EXPECT_EQ(harness_.State(job_), Job::STATE_RUNNING);
}

TEST_F(JobEngineProgressTest, OneRankThatComesOnIsEnough) {
  for (int seconds = 2; seconds <= 40; seconds += 2) {
    Beat({.idle = absl::Seconds(seconds), .silence = kNow}, {.idle = kNow, .silence = kNow});
  }
  EXPECT_EQ(harness_.State(job_), Job::STATE_RUNNING);
}

TEST_F(JobEngineProgressTest, WhatIsNotTimedIsLeftAlone) {
  const absl::Duration never = absl::InfiniteDuration();
  for (int seconds = 2; seconds <= 60; seconds += 2) {
    Beat({.idle = absl::Seconds(seconds), .silence = kNow, .limit = never},
         {.idle = absl::Seconds(seconds), .silence = kNow, .limit = never});
  }
  EXPECT_EQ(harness_.State(job_), Job::STATE_RUNNING);
}

TEST_F(JobEngineProgressTest, AHostThatWasPausedIsNotTakenForOneThatHangs) {
  Beat({.idle = kNow, .silence = kNow}, {.idle = kNow, .silence = kNow});
  // All at once, as after a pause of a virtual machine; then it comes on.
  const Said paused{.idle = absl::Seconds(30), .silence = absl::Seconds(30)};
  Beat(paused, paused);
  EXPECT_EQ(harness_.State(job_), Job::STATE_RUNNING);
  Beat({.idle = kNow, .silence = kNow}, {.idle = kNow, .silence = kNow});
  EXPECT_EQ(harness_.State(job_), Job::STATE_RUNNING);
}

TEST_F(JobEngineProgressTest, ARankThatSaysNothingIsNamedAlsoWhereNothingIsTimed) {
  const absl::Duration never = absl::InfiniteDuration();
  for (int seconds = 2; seconds <= 16; seconds += 2) {
    Beat({.idle = absl::Seconds(seconds), .silence = kNow, .limit = never},
         {.idle = absl::Seconds(seconds), .silence = absl::Seconds(seconds), .limit = never});
  }
  EXPECT_THAT(Reasons(), Contains("RANK_STALLED"));
  const auto transitions = harness_.store->Transitions(harness_.jobs->Find(job_)->id, 100).value();
  const auto stalled = std::find_if(transitions.begin(), transitions.end(),
                                    [](const auto& one) { return one.reason() == "RANK_STALLED"; });
  EXPECT_THAT(stalled->message(), HasSubstr("rank 1 on workers/host has not spoken for 16 s"));
}

TEST_F(JobEngineProgressTest, ADrainThatHangsEndsInAKill) {
  agent_->obeys_stops = false;
  LASP_EXPECT_OK(harness_.Suspend(job_));
  for (int seconds = 2; seconds <= 16; seconds += 2) {
    Beat({.idle = absl::Seconds(seconds), .silence = kNow},
         {.idle = absl::Seconds(seconds), .silence = kNow});
  }
  const lasp::v1::Stop& stop = agent_->received.back().stop();
  EXPECT_EQ(stop.mode(), lasp::v1::Stop::MODE_KILL);
  EXPECT_TRUE(stop.dump());
  EXPECT_EQ(harness_.State(job_), Job::STATE_SUSPENDING);
  harness_.ExitAll(job_, 137);
  EXPECT_EQ(harness_.State(job_), Job::STATE_SUSPENDED);
  EXPECT_THAT(harness_.Get(job_).message(), HasSubstr("the job hangs"));
}

TEST_F(JobEngineProgressTest, AStragglerIsToldOfOnce) {
  for (int beat = 0; beat < 3; ++beat) {
    Beat({.idle = kNow, .silence = kNow, .busy = 1.0},
         {.idle = kNow, .silence = kNow, .busy = 1.2});
  }
  EXPECT_THAT(EventReasons(), Not(Contains("STRAGGLER")));
  for (int beat = 0; beat < 3; ++beat) {
    Beat({.idle = kNow, .silence = kNow, .busy = 1.0},
         {.idle = kNow, .silence = kNow, .busy = 1.5});
  }
  const auto reasons = EventReasons();
  EXPECT_EQ(std::count(reasons.begin(), reasons.end(), "STRAGGLER"), 1);
  EXPECT_EQ(harness_.State(job_), Job::STATE_RUNNING);
}

TEST_F(JobEngineProgressTest, ALargeCheckpointMayTakeItsTimeToRestore) {
  LASP_ASSERT_OK(harness_.Cancel(job_));
  harness_.Advance(absl::Seconds(1));
  agent_->readies_ranks = false;
  job_ = harness_.Submit("restores", 2, 1);
  ASSERT_EQ(harness_.State(job_), Job::STATE_STARTING);
  const absl::Duration limit = absl::Seconds(40);
  for (int seconds = 2; seconds <= 300; seconds += 2) {
    Beat({.idle = kNow, .silence = kNow, .limit = limit},
         {.idle = absl::Seconds(seconds), .silence = kNow, .limit = limit});
    ASSERT_EQ(harness_.Get(job_).generation(), 1) << seconds;
  }
  // Cut off from one another.
  for (int seconds = 2; seconds <= 32; seconds += 2) {
    Beat({.idle = absl::Seconds(seconds), .silence = kNow, .limit = limit},
         {.idle = absl::Seconds(seconds), .silence = kNow, .limit = limit});
  }
  EXPECT_THAT(Reasons(), Contains("RANK_STALLED"));
}

class BadStepTest : public JobEngineProgressTest {
 protected:
  // All ranks leave because of a step, as recovery.non_finite says.
  void LeaveBecauseOf(int64_t step, int exit_code) {
    for (int rank = 0; rank < 2; ++rank) {
      const FakeRank found = *agent_->Find(job_, rank);
      lasp::v1::ConnectRequest message;
      auto* const exited = message.mutable_rank_exited();
      *exited->mutable_fence() = found.fence;
      exited->set_slot(found.slot);
      exited->set_exit_code(exit_code);
      *exited->mutable_status() = StatusToProto(
          ErrorWithReason(absl::StatusCode::kAborted, "the loss of the step is not finite",
                          "NON_FINITE_STEP", {{"step", absl::StrCat(step)}}));
      agent_->Forget(found.fence);
      harness_.Deliver(agent_, std::move(message));
    }
    harness_.Pump();
    harness_.Advance(absl::Seconds(5));
  }
};

TEST_F(BadStepTest, TheSameStepWrongTwiceEndsTheJob) {
  LeaveBecauseOf(7, kRankRetry);
  ASSERT_EQ(harness_.State(job_), Job::STATE_RUNNING);
  EXPECT_EQ(harness_.Get(job_).rolled_back_step(), 7);
  LeaveBecauseOf(9, kRankRetry);
  ASSERT_EQ(harness_.State(job_), Job::STATE_RUNNING);
  LeaveBecauseOf(9, kRankRetry);
  EXPECT_EQ(harness_.State(job_), Job::STATE_FAILED);
  EXPECT_EQ(harness_.Get(job_).reason(), "NON_FINITE_STEP");
  EXPECT_THAT(harness_.Get(job_).message(), HasSubstr("not a device"));
}

TEST_F(BadStepTest, AJobThatIsToHaltDoes) {
  LeaveBecauseOf(7, kRankDoNotRequeue);
  EXPECT_EQ(harness_.State(job_), Job::STATE_FAILED);
  EXPECT_EQ(harness_.Get(job_).reason(), "NON_FINITE_STEP");
}

TEST_F(BadStepTest, SkippedStepsAndOutliersAreToldOf) {
  lasp::v1::ConnectRequest message;
  *message.mutable_step_reports()->mutable_fence() = agent_->Find(job_, 0)->fence;
  auto* const row = message.mutable_step_reports()->add_steps();
  row->set_step(3);
  row->set_loss(99);
  row->set_outlier(true);
  harness_.Deliver(agent_, std::move(message));
  harness_.Pump();
  EXPECT_THAT(EventReasons(), Contains("OUTLIER_STEP"));
}

class QuarantineTest : public ::testing::Test {
 protected:
  QuarantineTest() : harness_(Options()) {}

  static CoreOptions Options() {
    CoreOptions options;
    options.quarantine_failures = 2;
    options.quarantine_window = absl::Hours(1);
    return options;
  }

  lasp::v1::Worker Worker(const std::string& id) const {
    return harness_.workers->Find(id)->ToProto();
  }

  // A job of one rank that is killed once, on the only host there is.
  void FailOn(FakeAgent* agent) {
    const std::string job = harness_.Submit(absl::StrCat("job-", ++jobs_));
    ASSERT_NE(agent->Find(job), nullptr);
    harness_.Exit(agent, *agent->Find(job), 128 + 9);
    harness_.Advance(absl::Seconds(3));
    LASP_EXPECT_OK(harness_.Cancel(job));
  }

  EngineHarness harness_;
  int jobs_ = 0;
};

TEST_F(QuarantineTest, AHostThatFailsOftenComesLast) {
  FakeAgent* const bad = harness_.AddAgent("bad", 4);
  FailOn(bad);
  EXPECT_EQ(Worker("bad").recent_failure_count(), 1);
  EXPECT_FALSE(Worker("bad").has_quarantine_end_time());
  FailOn(bad);
  EXPECT_TRUE(Worker("bad").has_quarantine_end_time());
  // Where there is nothing else it is used.
  const std::string alone = harness_.Submit("alone");
  EXPECT_NE(bad->Find(alone), nullptr);
  // The larger host would be taken for a small job otherwise, as the fuller one is.
  FakeAgent* const good = harness_.AddAgent("good", 8);
  const std::string job = harness_.Submit("job");
  EXPECT_EQ(bad->Find(job), nullptr);
  EXPECT_NE(good->Find(job), nullptr);
  // A restart of the coordinator does not forget it.
  harness_.Crash();
  harness_.Connect(bad);
  harness_.Connect(good);
  EXPECT_TRUE(Worker("bad").has_quarantine_end_time());
  // An operator does.
  LASP_EXPECT_OK(harness_.Drain("bad", /*undo=*/true));
  EXPECT_FALSE(Worker("bad").has_quarantine_end_time());
  EXPECT_EQ(Worker("bad").recent_failure_count(), 0);
  harness_.Crash();
  EXPECT_EQ(Worker("bad").recent_failure_count(), 0);
}

TEST_F(QuarantineTest, ALostHostHasFailedOnceWhateverItRan) {
  FakeAgent* const host = harness_.AddAgent("host", 4);
  for (const char* id : {"first", "second", "third"}) {
    harness_.Submit(id);
  }
  ASSERT_EQ(host->ranks.size(), 3U);
  for (int loss = 1; loss <= 2; ++loss) {
    harness_.Disconnect(host);
    host->ranks.clear();
    harness_.Advance(absl::Minutes(1));
    ASSERT_EQ(Worker("host").state(), lasp::v1::Worker::STATE_LOST);
    EXPECT_EQ(Worker("host").recent_failure_count(), loss);
    host->incarnation += "+";
    host->sequence = 0;
    harness_.Connect(host);
    harness_.Advance(absl::Seconds(5));
    ASSERT_EQ(host->ranks.size(), 3U);
  }
}

// Events of workers are for all to see, what a rank says may name data of one project.
TEST_F(QuarantineTest, ItsEventKeepsToItselfWhatARankSaid) {
  FakeAgent* const bad = harness_.AddAgent("bad", 4);
  for (const char* id : {"first", "second"}) {
    const std::string job = harness_.Submit(id);
    ASSERT_NE(bad->Find(job), nullptr);
    harness_.Exit(bad, *bad->Find(job), kRankSuspectHost, "/data/secret/corpus.bin is gone");
    EXPECT_THAT(harness_.store->Transitions(harness_.jobs->Find(job)->id, 100).value(),
                Contains(Property(&lasp::v1::Transition::message, HasSubstr("/data/secret"))));
    LASP_EXPECT_OK(harness_.Cancel(job));
  }
  const auto events = harness_.events->Before(std::numeric_limits<int64_t>::max());
  const auto told = std::find_if(events.begin(), events.end(), [](const EventPtr& event) {
    return event->reason() == "QUARANTINED";
  });
  ASSERT_NE(told, events.end());
  EXPECT_THAT((*told)->message(), HasSubstr("the last: HOST_SUSPECT"));
  EXPECT_THAT((*told)->message(), Not(HasSubstr("secret")));
}

TEST_F(QuarantineTest, TimeHeals) {
  FakeAgent* const bad = harness_.AddAgent("bad", 4);
  FailOn(bad);
  FailOn(bad);
  ASSERT_TRUE(Worker("bad").has_quarantine_end_time());
  harness_.clock.Advance(absl::Hours(2));
  harness_.Advance(absl::Seconds(1));
  EXPECT_FALSE(Worker("bad").has_quarantine_end_time());
  EXPECT_EQ(Worker("bad").recent_failure_count(), 0);
}

TEST_F(QuarantineTest, AFailureOfTheJobItselfDoesNotCount) {
  FakeAgent* const host = harness_.AddAgent("host", 4);
  const std::string job = harness_.Submit("job");
  harness_.Exit(host, *host->Find(job), kRankWrongConfiguration, "no such file");
  EXPECT_EQ(harness_.State(job), Job::STATE_FAILED);
  EXPECT_EQ(Worker("host").recent_failure_count(), 0);
}

}  // namespace
}  // namespace lasp::server
