// How a generation ends: its ranks are told to stop, fail, or are done, and what comes of it.
#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/log.h"
#include "proto/rpc/proto_time.h"
#include "proto/rpc/rank_exit_code.h"
#include "server/job_engine.h"

namespace lasp::server {
namespace {

using Job = lasp::v1::TrainingJob;
using Phase = RankRecord::Phase;

// Whether another generation would end the same way.
bool EndsTheJob(int exit_code) {
  return exit_code == kRankWrongConfiguration || exit_code == kRankDoNotRequeue;
}

// Whether it may be the worker that failed the rank: a suspect host, a signal, an agent that is
// gone.
bool SpeaksAgainstHost(int exit_code, absl::string_view why) {
  return exit_code == kRankSuspectHost || why == reason::kRankKilled || why == reason::kAgentLost;
}

}  // namespace

void JobEngine::StopRanks(JobRecord* job, bool gently, absl::string_view why, bool leave_state) {
  GenerationRun& run = *job->run;
  // A killing is not taken back.
  if (run.stopping() && !run.stop_gently) {
    gently = false;
  }
  const absl::Duration now = parts_.clock->Monotonic();
  const absl::Duration deadline = gently
                                      ? now + options_.drain_grace + options_.stop_repeat_interval
                                      : absl::InfiniteDuration();
  // Ranks that are ending their step get no more time for being asked twice.
  run.deadline = gently && run.stopping() ? std::min(run.deadline, deadline) : deadline;
  run.stop_reason = std::string(why);
  run.stop_gently = gently;
  run.leave_state = leave_state;
  run.last_stop = now;
  for (int rank = 0; rank < static_cast<int>(run.ranks.size()); ++rank) {
    if (run.ranks[static_cast<size_t>(rank)].phase != Phase::kExited) {
      SendStop(job, rank);
    }
  }
}

void JobEngine::SendStop(JobRecord* job, int rank) {
  lasp::v1::ConnectResponse response;
  auto* stop = response.mutable_stop();
  *stop->mutable_fence() = FenceOf(*job, rank);
  const GenerationRun& run = *job->run;
  if (run.stop_gently) {
    stop->set_mode(lasp::v1::Stop::MODE_DRAIN);
    *stop->mutable_grace_period() = ToProtoDuration(options_.drain_grace);
  } else if (run.leave_state && !run.culprits.contains(rank)) {
    stop->set_mode(lasp::v1::Stop::MODE_LEAVE_STATE);
    *stop->mutable_grace_period() = ToProtoDuration(options_.leave_grace);
  } else {
    stop->set_mode(lasp::v1::Stop::MODE_KILL);
  }
  stop->set_reason(job->run->stop_reason);
  stop->set_dump(job->run->dump);
  Send(SessionOf(job->run->ranks[static_cast<size_t>(rank)].worker_id), std::move(response));
}

absl::Duration JobEngine::RestartBackoff(int restarts) const {
  if (restarts <= 1) {
    return absl::ZeroDuration();
  }
  absl::Duration backoff = options_.restart_backoff;
  for (int i = 2; i < restarts && backoff < options_.max_restart_backoff; ++i) {
    backoff *= 2;
  }
  return std::min(backoff, options_.max_restart_backoff);
}

void JobEngine::FailGeneration(JobRecord* job, const GenerationFailure& failure) {
  const int restarts = job->view->job.restart_count();
  if (restarts >= job->max_restarts) {
    GenerationFailure last = failure;
    last.reason = reason::kRestartsExhausted;
    last.message =
        absl::StrCat("restarted ", restarts, restarts == 1 ? " time" : " times",
                     ", which is all that recovery.max_restarts allows; ", failure.message);
    FailForGood(job, last);
    return;
  }
  const bool trained = job->state() == Job::STATE_RUNNING;
  const bool bad_step =
      failure.reason == reason::kNonFiniteStep || failure.reason == reason::kOutlierStep;
  int64_t step = 0;
  if (bad_step && absl::SimpleAtoi(ErrorMetadata(StatusFromProto(failure.status), "step"), &step) &&
      step == job->view->job.rolled_back_step()) {
    GenerationFailure last = failure;
    last.message =
        absl::StrCat(failure.message,
                     "; so it was before the job was rolled back: the data, the model or "
                     "the learning rate is at fault, not a device");
    FailForGood(job, last);
    return;
  }
  const int stuck = job->view->job.failures_without_checkpoint() + 1;
  if (parts_.checkpoint_disk != nullptr && job->max_stuck > 0 && stuck >= job->max_stuck &&
      !job->checkpoints.Settling()) {
    GenerationFailure last = failure;
    last.reason = reason::kNoProgress;
    last.message = absl::StrCat(
        stuck, " generations in a row have failed without a newer checkpoint than that of step ",
        job->view->job.checkpoint_step(),
        ", which is what recovery.max_failures_without_checkpoint allows: write checkpoints more "
        "often (spec.checkpoint), or look into the failures; the last one: ",
        failure.message);
    FailForGood(job, last);
    return;
  }
  parts_.observer->OnGenerationFailed(failure.reason);
  job->last_failure = failure.message;
  // What has come further since begins at once again.
  job->retry_at = parts_.clock->Monotonic() + RestartBackoff(std::min(restarts + 1, stuck));
  LASP_LOG(kWarning, "generation failed",
           {{"training_job", job->name()},
            {"generation", job->generation()},
            {"reason", failure.reason},
            {"message", failure.message}});
  Transition(job, JobEvent::kGenerationFailed, failure.reason, failure.message, failure.actor,
             [&](Job* changed) {
               changed->set_restart_count(changed->restart_count() + 1);
               changed->set_failures_without_checkpoint(stuck);
               if (bad_step) {
                 changed->set_rolled_back_step(step);
               }
             });
  // After a bad step the job goes back to its checkpoint.
  StopRanks(job, /*gently=*/false, reason::kPeerFailed,
            /*leave_state=*/trained && job->replicated && !bad_step);
}

void JobEngine::FailForGood(JobRecord* job, const GenerationFailure& failure) {
  if (job->run != nullptr) {
    parts_.observer->OnGenerationFailed(failure.reason);
  }
  google::rpc::Status error = failure.status;
  if (error.code() == 0) {
    error = StatusToProto(
        ErrorWithReason(absl::StatusCode::kUnavailable, failure.message, failure.reason));
  }
  Transition(job, JobEvent::kFailedForGood, failure.reason, failure.message, failure.actor,
             [&error](Job* changed) { *changed->mutable_error() = error; });
  // Its slots stay held until the agents have told of each exit; the job itself waits for nothing.
  if (job->run != nullptr) {
    StopRanks(job, /*gently=*/false, reason::kPeerFailed);
    EndRun(job);
  }
}

void JobEngine::DrainGeneration(JobRecord* job, const std::string& worker_id) {
  const bool trains = job->state() == Job::STATE_RUNNING;
  const WorkerRecord* worker = workers_.Find(worker_id);
  const bool known = worker != nullptr && worker->draining();
  // A worker that has not said that it drains may be chosen again: not at once, then.
  job->retry_at =
      parts_.clock->Monotonic() + (known ? absl::ZeroDuration() : options_.restart_backoff);
  job->last_failure = absl::StrCat("workers/", worker_id, " drains");
  if (Transition(job, JobEvent::kGenerationDrained, reason::kWorkerDrained,
                 absl::StrCat("workers/", worker_id, " drains; the job starts again elsewhere"),
                 absl::StrCat("agent/", worker_id))) {
    StopRanks(job, /*gently=*/trains, reason::kWorkerDrained);
  }
}

void JobEngine::RankGone(JobRecord* job, int rank, int exit_code,
                         const GenerationFailure& failure) {
  GenerationRun& run = *job->run;
  RankRecord& record = run.ranks[static_cast<size_t>(rank)];
  if (record.phase == Phase::kExited) {
    return;
  }
  record.phase = Phase::kExited;
  record.exit_code = exit_code;
  // Also of one that is given up: what it says later is turned away by every run of the
  // coordinator, or a history of its steps would have holes.
  unit_.mutations.emplace_back(PutRankExit{
      .job_id = job->id(), .generation = run.generation, .rank = rank, .exit_code = exit_code});
  if (WorkerRecord* worker = workers_.Find(record.worker_id);
      worker != nullptr && worker->Release(FenceOf(*job, rank))) {
    PublishWorker(worker);
    schedule_due_ = true;
  }
  const std::string worker_id = record.worker_id;
  if (exit_code == kRankSuspectHost) {
    job->avoided_workers.insert(worker_id);
  }
  switch (job->state()) {
    case Job::STATE_STARTING:
    case Job::STATE_RUNNING: {
      const WorkerRecord* worker = workers_.Find(worker_id);
      if (exit_code == kRankDone && job->state() == Job::STATE_RUNNING) {
        run.deadline = std::min(run.deadline, parts_.clock->Monotonic() + options_.finish_deadline);
      } else if (EndsTheJob(exit_code)) {
        FailForGood(job, failure);
      } else if (exit_code == kRankDrained ||
                 (exit_code == kRankRetry && worker != nullptr && worker->draining())) {
        DrainGeneration(job, worker_id);
      } else if (exit_code == kRankRetry && !run.AllGone()) {
        if (!run.symptom.has_value()) {
          run.symptom = failure;
          run.symptom_deadline = parts_.clock->Monotonic() + options_.cause_grace;
        }
      } else {
        if (SpeaksAgainstHost(exit_code, failure.reason)) {
          AddFailure(worker_id, failure);
        }
        FailGeneration(job, exit_code == kRankRetry ? run.symptom.value_or(failure) : failure);
      }
      break;
    }
    case Job::STATE_RECOVERING:
      if (EndsTheJob(exit_code)) {
        FailForGood(job, failure);
      }
      break;
    case Job::STATE_SUSPENDING:
      if (EndsTheJob(exit_code)) {
        FailForGood(job, failure);
      } else if (exit_code != kRankDone && exit_code != kRankDrained && run.stop_gently) {
        // The others would wait for it in their next collective.
        run.symptom = failure;
        StopRanks(job, /*gently=*/false, reason::kPeerFailed);
      }
      break;
    default:
      break;
  }
  if (job->run != nullptr && job->run->AllGone()) {
    if (job->state() == Job::STATE_RUNNING && run.symptom.has_value()) {
      // A copy: failing may end the run.
      const GenerationFailure symptom = *run.symptom;
      FailGeneration(job, symptom);
    }
  }
  if (job->run != nullptr && job->run->AllGone()) {
    OnAllRanksGone(job);
  }
}

void JobEngine::OnAllRanksGone(JobRecord* job) {
  const lasp::v1::TrainingProgress& progress =
      job->progress == nullptr ? job->view->job.progress() : *job->progress;
  // Of one that was told to stop the coordinator, or its run before, may have turned steps away:
  // without the last one it is not done, whatever its ranks say.
  const bool all_done =
      (job->state() == Job::STATE_RUNNING || progress.step() >= progress.max_steps()) &&
      std::all_of(job->run->ranks.begin(), job->run->ranks.end(),
                  [](const RankRecord& rank) { return rank.exit_code == kRankDone; });
  const int64_t generation = job->run->generation;
  const std::string stopped =
      job->run->symptom.has_value()
          ? absl::StrCat("a failure came before the stop that was asked for: ",
                         job->run->symptom->message, "; resume goes on from the last checkpoint")
          : "stopped as asked; resume starts it again";
  EndRun(job);
  schedule_due_ = true;
  switch (job->state()) {
    case Job::STATE_RUNNING:
    case Job::STATE_SUSPENDING:
      if (all_done) {
        Transition(job, JobEvent::kAllDone, reason::kAllStepsDone,
                   absl::StrCat("generation ", generation, " has done all steps"), "coordinator");
      } else {
        Transition(job, JobEvent::kRanksGone, reason::kSuspended, stopped, "coordinator");
      }
      break;
    case Job::STATE_RECOVERING:
      // Told to make room, in their last step.
      if (all_done) {
        Transition(job, JobEvent::kAllDone, reason::kAllStepsDone,
                   absl::StrCat("generation ", generation, " has done all steps"), "coordinator");
      }
      break;
    case Job::STATE_CANCELLING:
      Transition(job, JobEvent::kRanksGone, reason::kCancelled, "cancelled as asked",
                 "coordinator");
      break;
    default:
      break;
  }
}

}  // namespace lasp::server
