// A generation goes on from what ranks of the one before left in memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server/core/engine_harness.h"

namespace lasp::server {
namespace {

using ::testing::Contains;
using ::testing::Not;

constexpr int kKilled = 128 + 9;

class JobEngineRebuildTest : public ::testing::Test {
 protected:
  // A job of four ranks on two hosts, which has reported step 6.
  void SetUp() override {
    for (const char* const id : {"a", "b"}) {
      FakeAgent* const agent = harness_.AddAgent(id, 2);
      agent->leave = Leave;
    }
    job_ = harness_.Submit("job", 2, 2);
    ASSERT_EQ(harness_.State(job_), Job::STATE_RUNNING);
    FakeAgent* const agent = Host(0);
    harness_.Report(agent, *agent->Find(job_, 0), 1, 6);
  }

  // After step 8, in two halves, by rank in turn.
  static lasp::v1::StateLeft Leave(const lasp::v1::Fence& fence) {
    lasp::v1::StateLeft left;
    left.mutable_state()->set_step(8);
    lasp::v1::StatePiece& piece = *left.add_pieces();
    piece.set_begin(int64_t{50} * (fence.rank() % 2));
    piece.set_count(50);
    left.set_total_count(100);
    left.mutable_shard()->set_file(absl::StrCat("rank-", fence.rank(), ".state"));
    for (int64_t step = 3; step <= 8; ++step) {
      lasp::v1::StepMetrics& row = *left.add_recent_steps();
      row.set_step(step);
      row.set_loss(100.0 / static_cast<double>(step));
    }
    return left;
  }

  FakeAgent* Host(int rank) {
    for (auto& [id, agent] : harness_.agents) {
      if (agent->Find(job_, rank) != nullptr) {
        return agent.get();
      }
    }
    return nullptr;
  }

  void Kill(int rank) {
    FakeAgent* const agent = Host(rank);
    const FakeRank killed = *agent->Find(job_, rank);
    harness_.Exit(agent, killed, kKilled);
    harness_.Advance(absl::Seconds(10));
  }

  void LeaveNothing() {
    for (auto& [id, agent] : harness_.agents) {
      agent->leave = nullptr;
    }
  }

  lasp::v1::Assignment LastAssignment() const {
    lasp::v1::Assignment last;
    for (const auto& [id, agent] : harness_.agents) {
      for (const auto& message : agent->received) {
        if (message.has_assignment() &&
            message.assignment().fence().generation() >= last.fence().generation()) {
          last = message.assignment();
        }
      }
    }
    return last;
  }

  int Stops(int64_t generation, lasp::v1::Stop::Mode mode) const {
    int count = 0;
    for (const auto& [id, agent] : harness_.agents) {
      for (const auto& message : agent->received) {
        count += message.has_stop() && message.stop().fence().generation() == generation &&
                         message.stop().mode() == mode
                     ? 1
                     : 0;
      }
    }
    return count;
  }

  int StopsToLeave(int64_t generation) const {
    return Stops(generation, lasp::v1::Stop::MODE_LEAVE_STATE);
  }

  EngineHarness harness_;
  std::string job_;
};

TEST_F(JobEngineRebuildTest, ALostRankCostsNoStep) {
  Kill(0);
  EXPECT_EQ(harness_.State(job_), Job::STATE_RUNNING);
  EXPECT_EQ(StopsToLeave(1), 3);
  const lasp::v1::Assignment assignment = LastAssignment();
  EXPECT_EQ(assignment.fence().generation(), 2);
  ASSERT_TRUE(assignment.has_rebuild());
  EXPECT_FALSE(assignment.has_restore_from());
  EXPECT_EQ(assignment.rebuild().generation(), 1);
  EXPECT_EQ(assignment.rebuild().state().step(), 8);
  ASSERT_EQ(assignment.rebuild().parts_size(), 2);
  EXPECT_EQ(assignment.rebuild().parts(0).shard().file(), "rank-2.state");
  const Job job = harness_.Get(job_);
  EXPECT_EQ(job.restored_step(), 8);
  EXPECT_EQ(job.restored_generation(), 1);
  EXPECT_TRUE(job.rebuilt());
  EXPECT_EQ(job.progress().step(), 8);
  EXPECT_EQ(job.failures_without_checkpoint(), 0);
  EXPECT_THAT(harness_.TransitionReasons(job_), Contains("REBUILT_FROM_SURVIVORS"));
  // Rank 0 had told of six.
  const auto steps = harness_.store->ReadSteps(harness_.jobs->Find(job_)->id, 0, 100, 1);
  LASP_ASSERT_OK(steps.status());
  ASSERT_EQ(steps->size(), 8u);
  EXPECT_EQ((*steps)[5].loss(), 10.0 / 6);
  EXPECT_EQ((*steps)[7].loss(), 100.0 / 8);
}

TEST_F(JobEngineRebuildTest, ALostHostLeavesEnoughOnTheOther) {
  FakeAgent* const other = harness_.AddAgent("c", 2);
  FakeAgent* const lost = Host(0);
  ASSERT_NE(lost, Host(2)) << "an SP group is on one host";
  harness_.Disconnect(lost);
  harness_.Advance(absl::Seconds(20));
  EXPECT_EQ(harness_.State(job_), Job::STATE_RUNNING);
  EXPECT_NE(other->Find(job_), nullptr);
  EXPECT_TRUE(LastAssignment().has_rebuild());
  EXPECT_TRUE(harness_.Get(job_).rebuilt());
}

TEST_F(JobEngineRebuildTest, WithoutAWholeItBeginsAnew) {
  for (auto& [id, agent] : harness_.agents) {
    agent->leave = [](const lasp::v1::Fence& fence) {
      lasp::v1::StateLeft left = Leave(fence);
      left.mutable_state()->set_step(8 + fence.rank() % 2);  // the halves are not of one step
      return left;
    };
  }
  Kill(0);
  EXPECT_EQ(harness_.State(job_), Job::STATE_RUNNING);
  EXPECT_FALSE(LastAssignment().has_rebuild());
  EXPECT_EQ(harness_.Get(job_).restored_step(), 0);
  EXPECT_FALSE(harness_.Get(job_).rebuilt());
}

TEST_F(JobEngineRebuildTest, OnceStepsFollowWhatWasLeftIsGone) {
  Kill(0);
  ASSERT_TRUE(LastAssignment().has_rebuild());
  LeaveNothing();
  FakeAgent* const agent = Host(0);
  harness_.Report(agent, *agent->Find(job_, 0), 9, 9);
  Kill(1);
  EXPECT_EQ(LastAssignment().fence().generation(), 3);
  EXPECT_FALSE(LastAssignment().has_rebuild());
  EXPECT_FALSE(harness_.Get(job_).rebuilt());
}

TEST_F(JobEngineRebuildTest, ADeathBeforeTheFirstStepLeavesItToTheNext) {
  Kill(0);
  LeaveNothing();
  Kill(1);
  lasp::v1::Assignment assignment = LastAssignment();
  EXPECT_EQ(assignment.fence().generation(), 3);
  ASSERT_TRUE(assignment.has_rebuild());
  EXPECT_EQ(assignment.rebuild().generation(), 1);
  Job job = harness_.Get(job_);
  EXPECT_EQ(job.restored_step(), 8);
  EXPECT_TRUE(job.rebuilt());
  EXPECT_EQ(job.failures_without_checkpoint(), 1) << "it has not come further";
  // A rebuilding that fails each time is not tried for ever.
  Kill(2);
  EXPECT_TRUE(LastAssignment().has_rebuild());
  Kill(3);
  assignment = LastAssignment();
  EXPECT_EQ(assignment.fence().generation(), 5);
  EXPECT_FALSE(assignment.has_rebuild());
}

// A state of many gigabytes takes longer to leave than a Stop takes to be said again.
TEST_F(JobEngineRebuildTest, OneThatStillLeavesItsStateIsNotKilled) {
  for (auto& [id, agent] : harness_.agents) {
    agent->obeys_stops = false;
  }
  Kill(0);
  FakeAgent* const agent = Host(1);
  ASSERT_NE(agent, nullptr);
  const FakeRank leaving = *agent->Find(job_, 1);
  lasp::v1::ConnectRequest message;
  auto* const status = message.mutable_heartbeat()->add_ranks();
  *status->mutable_fence() = leaving.fence;
  status->set_phase(lasp::v1::RankStatus::PHASE_STOPPING);
  agent->received.clear();
  harness_.Deliver(agent, message);
  harness_.Pump();
  ASSERT_GT(agent->Count(lasp::v1::ConnectResponse::kStop), 0);
  for (const lasp::v1::ConnectResponse& told : agent->received) {
    EXPECT_TRUE(!told.has_stop() || told.stop().mode() == lasp::v1::Stop::MODE_LEAVE_STATE);
  }
}

TEST_F(JobEngineRebuildTest, AnAgentOfTheReleaseBeforeKnowsNothingOfIt) {
  harness_.agents["b"]->newest_protocol = kCheckpointProtocol;
  harness_.RestartAgent(harness_.agents["b"].get());
  harness_.Advance(absl::Seconds(10));
  ASSERT_EQ(harness_.State(job_), Job::STATE_RUNNING);
  EXPECT_FALSE(LastAssignment().has_rebuild());
}

TEST_F(JobEngineRebuildTest, ACancelWaitsForNoState) {
  LASP_ASSERT_OK(harness_.Cancel(job_));
  EXPECT_EQ(harness_.State(job_), Job::STATE_CANCELLED);
  EXPECT_EQ(Stops(1, lasp::v1::Stop::MODE_KILL), 4);
  EXPECT_EQ(StopsToLeave(1), 0);
}

TEST_F(JobEngineRebuildTest, AfterItsRestartTheCoordinatorGoesBackToTheCheckpoint) {
  for (auto& [id, agent] : harness_.agents) {
    agent->readies_ranks = false;
  }
  Kill(0);
  ASSERT_EQ(harness_.State(job_), Job::STATE_STARTING);
  ASSERT_TRUE(LastAssignment().has_rebuild());
  // One of its ranks has never heard of its assignment.
  FakeAgent* const agent = Host(3);
  harness_.Crash();
  agent->Forget(agent->Find(job_, 3)->fence);
  for (auto& [id, other] : harness_.agents) {
    other->readies_ranks = true;
    harness_.Connect(other.get());
  }
  harness_.Advance(absl::Seconds(60));
  EXPECT_EQ(harness_.State(job_), Job::STATE_RUNNING);
  EXPECT_EQ(LastAssignment().fence().generation(), 3);
  EXPECT_FALSE(LastAssignment().has_rebuild());
  EXPECT_THAT(harness_.TransitionReasons(job_), Not(Contains("RESTARTED_FROM_CHECKPOINT")));
}

}  // namespace
}  // namespace lasp::server
