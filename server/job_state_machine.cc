#include "server/job_state_machine.h"

namespace lasp::server {
namespace {

struct Rule {
  JobState from;
  JobEvent event;
  JobState to;
};

using Job = lasp::v1::TrainingJob;

constexpr Rule kRules[] = {
    {Job::STATE_QUEUED, JobEvent::kGranted, Job::STATE_STARTING},
    {Job::STATE_QUEUED, JobEvent::kFailedForGood, Job::STATE_FAILED},
    {Job::STATE_QUEUED, JobEvent::kCancelRequested, Job::STATE_CANCELLED},
    {Job::STATE_QUEUED, JobEvent::kSuspendRequested, Job::STATE_SUSPENDED},

    {Job::STATE_STARTING, JobEvent::kAllReady, Job::STATE_RUNNING},
    {Job::STATE_STARTING, JobEvent::kGenerationFailed, Job::STATE_RECOVERING},
    {Job::STATE_STARTING, JobEvent::kGenerationDrained, Job::STATE_RECOVERING},
    {Job::STATE_STARTING, JobEvent::kFailedForGood, Job::STATE_FAILED},
    {Job::STATE_STARTING, JobEvent::kCancelRequested, Job::STATE_CANCELLING},
    {Job::STATE_STARTING, JobEvent::kSuspendRequested, Job::STATE_SUSPENDING},

    {Job::STATE_RUNNING, JobEvent::kGenerationFailed, Job::STATE_RECOVERING},
    {Job::STATE_RUNNING, JobEvent::kGenerationDrained, Job::STATE_RECOVERING},
    {Job::STATE_RUNNING, JobEvent::kFailedForGood, Job::STATE_FAILED},
    {Job::STATE_RUNNING, JobEvent::kAllDone, Job::STATE_SUCCEEDED},
    {Job::STATE_RUNNING, JobEvent::kCancelRequested, Job::STATE_CANCELLING},
    {Job::STATE_RUNNING, JobEvent::kSuspendRequested, Job::STATE_SUSPENDING},

    {Job::STATE_RECOVERING, JobEvent::kGranted, Job::STATE_STARTING},
    {Job::STATE_RECOVERING, JobEvent::kAllDone, Job::STATE_SUCCEEDED},
    {Job::STATE_RECOVERING, JobEvent::kFailedForGood, Job::STATE_FAILED},
    {Job::STATE_RECOVERING, JobEvent::kCancelRequested, Job::STATE_CANCELLING},
    {Job::STATE_RECOVERING, JobEvent::kSuspendRequested, Job::STATE_SUSPENDING},

    {Job::STATE_SUSPENDING, JobEvent::kRanksGone, Job::STATE_SUSPENDED},
    {Job::STATE_SUSPENDING, JobEvent::kAllDone, Job::STATE_SUCCEEDED},
    {Job::STATE_SUSPENDING, JobEvent::kFailedForGood, Job::STATE_FAILED},
    {Job::STATE_SUSPENDING, JobEvent::kCancelRequested, Job::STATE_CANCELLING},

    {Job::STATE_SUSPENDED, JobEvent::kResumeRequested, Job::STATE_QUEUED},
    {Job::STATE_SUSPENDED, JobEvent::kCancelRequested, Job::STATE_CANCELLED},

    {Job::STATE_CANCELLING, JobEvent::kRanksGone, Job::STATE_CANCELLED},
};

}  // namespace

std::optional<JobState> NextState(JobState state, JobEvent event) {
  for (const Rule& rule : kRules) {
    if (rule.from == state && rule.event == event) {
      return rule.to;
    }
  }
  return std::nullopt;
}

bool IsFinished(JobState state) {
  return state == Job::STATE_SUCCEEDED || state == Job::STATE_FAILED ||
         state == Job::STATE_CANCELLED;
}

bool MayHaveRanks(JobState state) {
  return state == Job::STATE_STARTING || state == Job::STATE_RUNNING ||
         state == Job::STATE_RECOVERING || state == Job::STATE_SUSPENDING ||
         state == Job::STATE_CANCELLING;
}

absl::string_view JobStateName(JobState state) {
  constexpr absl::string_view kPrefix = "STATE_";
  absl::string_view name = Job::State_Name(state);
  return name.empty() ? "UNSPECIFIED" : name.substr(kPrefix.size());
}

}  // namespace lasp::server
