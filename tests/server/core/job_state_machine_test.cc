// Every state against every event: what is not listed here must not be possible.
#include "server/job_state_machine.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <utility>

namespace lasp::server {
namespace {

using Job = lasp::v1::TrainingJob;
using E = JobEvent;

constexpr JobState kStates[] = {Job::STATE_QUEUED,     Job::STATE_STARTING,   Job::STATE_RUNNING,
                                Job::STATE_RECOVERING, Job::STATE_SUSPENDING, Job::STATE_SUSPENDED,
                                Job::STATE_CANCELLING, Job::STATE_SUCCEEDED,  Job::STATE_FAILED,
                                Job::STATE_CANCELLED};

// Written by hand from the meaning of the states, not from the table.
const std::map<std::pair<JobState, E>, JobState>& Allowed() {
  static const auto* const allowed = new std::map<std::pair<JobState, E>, JobState>{
      {{Job::STATE_QUEUED, E::kGranted}, Job::STATE_STARTING},
      {{Job::STATE_RECOVERING, E::kGranted}, Job::STATE_STARTING},
      {{Job::STATE_STARTING, E::kAllReady}, Job::STATE_RUNNING},
      {{Job::STATE_STARTING, E::kGenerationFailed}, Job::STATE_RECOVERING},
      {{Job::STATE_RUNNING, E::kGenerationFailed}, Job::STATE_RECOVERING},
      {{Job::STATE_STARTING, E::kGenerationDrained}, Job::STATE_RECOVERING},
      {{Job::STATE_RUNNING, E::kGenerationDrained}, Job::STATE_RECOVERING},
      {{Job::STATE_QUEUED, E::kFailedForGood}, Job::STATE_FAILED},
      {{Job::STATE_STARTING, E::kFailedForGood}, Job::STATE_FAILED},
      {{Job::STATE_RUNNING, E::kFailedForGood}, Job::STATE_FAILED},
      {{Job::STATE_RECOVERING, E::kAllDone}, Job::STATE_SUCCEEDED},
      {{Job::STATE_RECOVERING, E::kFailedForGood}, Job::STATE_FAILED},
      {{Job::STATE_SUSPENDING, E::kFailedForGood}, Job::STATE_FAILED},
      {{Job::STATE_RUNNING, E::kAllDone}, Job::STATE_SUCCEEDED},
      {{Job::STATE_SUSPENDING, E::kAllDone}, Job::STATE_SUCCEEDED},
      {{Job::STATE_QUEUED, E::kCancelRequested}, Job::STATE_CANCELLED},
      {{Job::STATE_SUSPENDED, E::kCancelRequested}, Job::STATE_CANCELLED},
      {{Job::STATE_STARTING, E::kCancelRequested}, Job::STATE_CANCELLING},
      {{Job::STATE_RUNNING, E::kCancelRequested}, Job::STATE_CANCELLING},
      {{Job::STATE_RECOVERING, E::kCancelRequested}, Job::STATE_CANCELLING},
      {{Job::STATE_SUSPENDING, E::kCancelRequested}, Job::STATE_CANCELLING},
      {{Job::STATE_QUEUED, E::kSuspendRequested}, Job::STATE_SUSPENDED},
      {{Job::STATE_STARTING, E::kSuspendRequested}, Job::STATE_SUSPENDING},
      {{Job::STATE_RUNNING, E::kSuspendRequested}, Job::STATE_SUSPENDING},
      {{Job::STATE_RECOVERING, E::kSuspendRequested}, Job::STATE_SUSPENDING},
      {{Job::STATE_SUSPENDED, E::kResumeRequested}, Job::STATE_QUEUED},
      {{Job::STATE_SUSPENDING, E::kRanksGone}, Job::STATE_SUSPENDED},
      {{Job::STATE_CANCELLING, E::kRanksGone}, Job::STATE_CANCELLED},
  };
  return *allowed;
}

TEST(JobStateMachineTest, EveryStateAgainstEveryEvent) {
  for (const JobState state : kStates) {
    for (const JobEvent event : kJobEvents) {
      const auto expected = Allowed().find({state, event});
      const auto next = NextState(state, event);
      SCOPED_TRACE(std::string(JobStateName(state)) + " " +
                   std::to_string(static_cast<int>(event)));
      ASSERT_EQ(next.has_value(), expected != Allowed().end());
      if (next.has_value()) {
        EXPECT_EQ(*next, expected->second);
      }
    }
  }
}

TEST(JobStateMachineTest, FinishedIsFinal) {
  for (const JobState state : kStates) {
    for (const JobEvent event : kJobEvents) {
      EXPECT_FALSE(IsFinished(state) && NextState(state, event).has_value());
    }
  }
}

TEST(JobStateMachineTest, EveryStateCanBeReachedAndLeadsToAnEnd) {
  std::set<JobState> reached = {Job::STATE_QUEUED};
  std::set<JobState> ending;
  for (size_t round = 0; round < std::size(kStates); ++round) {
    for (const JobState state : kStates) {
      if (IsFinished(state)) {
        ending.insert(state);
      }
      for (const JobEvent event : kJobEvents) {
        const auto next = NextState(state, event);
        if (next.has_value() && reached.contains(state)) {
          reached.insert(*next);
        }
        if (next.has_value() && ending.contains(*next)) {
          ending.insert(state);
        }
      }
    }
  }
  EXPECT_EQ(reached.size(), std::size(kStates));
  EXPECT_EQ(ending.size(), std::size(kStates));
}

TEST(JobStateMachineTest, NamesAndKinds) {
  EXPECT_EQ(JobStateName(Job::STATE_RUNNING), "RUNNING");
  EXPECT_EQ(JobStateName(Job::STATE_UNSPECIFIED), "UNSPECIFIED");
  EXPECT_EQ(JobStateName(static_cast<JobState>(99)), "UNSPECIFIED");
  EXPECT_TRUE(MayHaveRanks(Job::STATE_CANCELLING));
  EXPECT_FALSE(MayHaveRanks(Job::STATE_QUEUED));
  EXPECT_FALSE(MayHaveRanks(Job::STATE_FAILED));
}

}  // namespace
}  // namespace lasp::server
