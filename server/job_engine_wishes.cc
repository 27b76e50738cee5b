// Where users want a job to go: to be cancelled, suspended, resumed; and hosts to be drained.
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/resource_name.h"
#include "server/audit_record.h"
#include "server/event_text.h"
#include "server/job_engine.h"
#include "server/not_found.h"

namespace lasp::server {
namespace {

using Job = lasp::v1::TrainingJob;

// What the user of a job in this state can do instead of what it does not allow.
absl::string_view NextStep(JobState state) {
  switch (state) {
    case Job::STATE_SUSPENDING:
      return "wait until it is SUSPENDED";
    case Job::STATE_CANCELLING:
      return "it ends by itself; to train it again, create another job of its spec";
    default:
      return IsFinished(state)
                 ? "it has ended; delete it, or create another job of its spec to train it again"
                 : "only a SUSPENDED job can; this one starts by itself";
  }
}

}  // namespace

void JobEngine::AnswerState(const JobRecord& job, absl::string_view wish, const JobCallback& done) {
  Answer(done, ErrorWithReason(absl::StatusCode::kFailedPrecondition,
                               absl::StrCat(job.name(), " is ", JobStateName(job.state()),
                                            " and cannot be ", wish, ": ", NextStep(job.state())),
                               "WRONG_STATE", {{"state", std::string(JobStateName(job.state()))}}));
}

JobRecord* JobEngine::JobOfWish(absl::string_view method, const std::string& name,
                                const std::string& request_id, const JobCallback& done,
                                std::string* key) {
  if (Repeated(method, name, request_id, 0, done, key)) {
    return nullptr;
  }
  JobRecord* const job = FindJob(name);
  if (job == nullptr) {
    Answer(done, NotFound(name));
  }
  return job;
}

void JobEngine::Cancel(const lasp::v1::CancelTrainingJobRequest& request, const Caller& caller,
                       const JobCallback& done) {
  std::string key;
  JobRecord* const job = JobOfWish("cancel", request.name(), request.request_id(), done, &key);
  if (job == nullptr) {
    return;
  }
  const JobState state = job->state();
  if (state == Job::STATE_CANCELLED || state == Job::STATE_CANCELLING) {
    Answer(done, job->view);
    return;
  }
  const bool at_once = NextState(state, JobEvent::kCancelRequested) == Job::STATE_CANCELLED;
  if (!Transition(job, JobEvent::kCancelRequested,
                  at_once ? reason::kCancelled : reason::kCancelRequested,
                  at_once ? "cancelled before it had ranks" : "its ranks are being stopped",
                  caller.Actor())) {
    AnswerState(*job, "cancelled", done);
    return;
  }
  if (job->run != nullptr) {
    StopRanks(job, /*gently=*/false, reason::kCancelled);
  } else if (!at_once) {
    Transition(job, JobEvent::kRanksGone, reason::kCancelled, "cancelled as asked", "coordinator");
  }
  Audit(caller, audit::kCancel, *job);
  Remember(key, 0, *job);
  Answer(done, job->view);
}

void JobEngine::Suspend(const lasp::v1::SuspendTrainingJobRequest& request, const Caller& caller,
                        const JobCallback& done) {
  std::string key;
  JobRecord* const job = JobOfWish("suspend", request.name(), request.request_id(), done, &key);
  if (job == nullptr) {
    return;
  }
  const JobState state = job->state();
  if (state == Job::STATE_SUSPENDED || state == Job::STATE_SUSPENDING) {
    Answer(done, job->view);
    return;
  }
  const bool at_once = NextState(state, JobEvent::kSuspendRequested) == Job::STATE_SUSPENDED;
  if (!Transition(job, JobEvent::kSuspendRequested,
                  at_once ? reason::kSuspended : reason::kSuspendRequested,
                  at_once ? "suspended before it had ranks" : "its ranks end their step and stop",
                  caller.Actor())) {
    AnswerState(*job, "suspended", done);
    return;
  }
  if (job->run != nullptr) {
    // Ranks that do not train have no step to end; those of a worker that drains are ending theirs.
    StopRanks(job, /*gently=*/state == Job::STATE_RUNNING || job->run->stop_gently,
              reason::kSuspended);
  } else if (!at_once) {
    Transition(job, JobEvent::kRanksGone, reason::kSuspended,
               "stopped as asked; resume starts it again", "coordinator");
  }
  Audit(caller, audit::kSuspend, *job);
  Remember(key, 0, *job);
  Answer(done, job->view);
}

void JobEngine::Resume(const lasp::v1::ResumeTrainingJobRequest& request, const Caller& caller,
                       const JobCallback& done) {
  std::string key;
  JobRecord* const job = JobOfWish("resume", request.name(), request.request_id(), done, &key);
  if (job == nullptr) {
    return;
  }
  const absl::StatusOr<JobName> name = ParseJobName(job->name());
  if (absl::Status room = name.ok() ? CheckQueueRoom(name->project) : name.status();
      job->state() == Job::STATE_SUSPENDED && !room.ok()) {
    Answer(done, std::move(room));
    return;
  }
  if (!Transition(job, JobEvent::kResumeRequested, reason::kResumed, "queued again",
                  caller.Actor())) {
    AnswerState(*job, "resumed", done);
    return;
  }
  Audit(caller, audit::kResume, *job);
  Remember(key, 0, *job);
  Answer(done, job->view);
}

void JobEngine::DrainWorker(const lasp::v1::DrainWorkerRequest& request, const Caller& caller,
                            const WorkerCallback& done) {
  const absl::StatusOr<std::string> id = ParseWorkerName(request.name());
  WorkerRecord* worker = id.ok() ? workers_.Find(*id) : nullptr;
  if (worker == nullptr) {
    const absl::Status status = id.ok() ? NotFound(request.name()) : id.status();
    unit_.callbacks.emplace_back([done, status] { done(status); });
    return;
  }
  const bool changed = std::exchange(worker->drain_requested, !request.undo()) == request.undo();
  StoreWorker(*worker);
  if (changed) {
    AddWorkerEvent(
        worker, worker->state(),
        request.undo() ? event_reason::kDrainUndone : event_reason::kDrainRequested,
        request.undo() ? "may take ranks again" : "takes no new ranks; those it has move elsewhere",
        caller.Actor());
  }
  lasp::v1::AuditRecord record =
      NewAuditRecord(caller, audit::kDrainWorker, request.name(), parts_.clock->Now());
  record.set_detail(request.undo() ? "undo" : "");
  Record(std::move(record));
  if (worker->drain_requested) {
    StopForDrain(worker);
  } else {
    ForgiveFailures(worker);
  }
  PublishWorker(worker);
  schedule_due_ = true;
  unit_.callbacks.emplace_back([done, view = worker->MakeView()] { done(view); });
}

}  // namespace lasp::server
