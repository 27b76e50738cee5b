// How long a job may wait, and how long it may run.
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/proto_time.h"
#include "proto/rpc/status_macros.h"
#include "server/job_engine.h"

namespace lasp::server {
namespace {

using Job = lasp::v1::TrainingJob;

// Of a job's latest ones, for the one that began its present limit: more than its restarts make.
constexpr int kTransitionsRead = 4'096;

// What a state counts against.
enum class Timer { kNone, kQueue, kRun };

Timer TimerOf(JobState state) {
  switch (state) {
    case Job::STATE_QUEUED:
      return Timer::kQueue;
    case Job::STATE_STARTING:
    case Job::STATE_RUNNING:
    case Job::STATE_RECOVERING:
      return Timer::kRun;
    default:
      return Timer::kNone;
  }
}

}  // namespace

void JobEngine::LimitTime(JobRecord* job, JobState from) {
  if (TimerOf(from) != TimerOf(job->state())) {
    SetTimeLimit(job, absl::ZeroDuration());
  }
}

void JobEngine::SetTimeLimit(JobRecord* job, absl::Duration passed) {
  time_limits_.erase({job->time_limit, job});
  const Timer timer = TimerOf(job->state());
  const absl::Duration limit = timer == Timer::kQueue ? job->max_queue_duration
                               : timer == Timer::kRun ? job->max_run_duration
                                                      : absl::InfiniteDuration();
  job->time_limit = parts_.clock->Monotonic() + limit - passed;
  if (job->time_limit < absl::InfiniteDuration()) {
    time_limits_.emplace(job->time_limit, job);
  }
}

absl::Status JobEngine::RestoreTimeLimit(JobRecord* job) {
  const Timer timer = TimerOf(job->state());
  if (timer == Timer::kNone || (job->max_queue_duration == absl::InfiniteDuration() &&
                                job->max_run_duration == absl::InfiniteDuration())) {
    return absl::OkStatus();
  }
  LASP_ASSIGN_OR_RETURN(const auto transitions,
                        parts_.store->Transitions(job->id(), kTransitionsRead));
  absl::Time since = FromProtoTime(job->view->job.create_time());
  for (const lasp::v1::Transition& transition : transitions) {
    if (TimerOf(transition.to_state()) == timer && TimerOf(transition.from_state()) != timer) {
      since = FromProtoTime(transition.time());
    }
  }
  SetTimeLimit(job, std::max(absl::ZeroDuration(), parts_.clock->Now() - since));
  return absl::OkStatus();
}

void JobEngine::SweepTimeLimits(absl::Duration now) {
  while (!time_limits_.empty() && time_limits_.begin()->first <= now) {
    JobRecord* const job = time_limits_.begin()->second;
    GenerationFailure failure{.reason = "", .message = "", .status = {}, .actor = "coordinator"};
    if (TimerOf(job->state()) == Timer::kQueue) {
      failure.reason = reason::kQueueTimeout;
      failure.message = absl::StrCat(
          "waited in the queue for ", absl::FormatDuration(job->max_queue_duration),
          ", all that spec.max_queue_duration allows (", job->view->job.message(), ")");
    } else {
      failure.reason = reason::kRunTimeout;
      failure.message = absl::StrCat(
          "has run for ", absl::FormatDuration(job->max_run_duration),
          ", all that spec.max_run_duration allows, up to step ",
          job->progress == nullptr ? job->view->job.progress().step() : job->progress->step());
    }
    failure.status = StatusToProto(
        ErrorWithReason(absl::StatusCode::kDeadlineExceeded, failure.message, failure.reason));
    // Takes the job's entry away: its state counts against nothing.
    FailForGood(job, failure);
  }
}

}  // namespace lasp::server
