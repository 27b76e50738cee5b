// What the engine tells of its decisions: events, which leave with the commit unit.
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/proto_time.h"
#include "proto/rpc/status_macros.h"
#include "server/event_text.h"
#include "server/job_engine.h"

namespace lasp::server {

using lasp::v1::Event;

absl::Status JobEngine::RestoreEvents(int64_t newest) {
  // One more than the log holds says whether there are older ones.
  LASP_ASSIGN_OR_RETURN(const std::vector<StoredTransition> latest,
                        parts_.store->LatestTransitions(options_.event_history + 1));
  std::unordered_map<int64_t, std::string> names;
  for (const auto& [uid, job] : jobs_by_uid_) {
    names[job->id()] = job->name();
  }
  std::vector<Event> events;
  events.reserve(latest.size());
  for (auto row = latest.rbegin(); row != latest.rend(); ++row) {
    if (const auto name = names.find(row->job_id); name != names.end()) {
      events.push_back(EventOfTransition(name->second, row->revision, row->transition));
    }
  }
  const bool complete = std::ssize(latest) <= options_.event_history;
  parts_.events->Restore(std::move(events), newest, complete);
  return absl::OkStatus();
}

void JobEngine::AddTransitionRow(const JobRecord& job, lasp::v1::Transition transition) {
  unit_.events.push_back(EventOfTransition(job.name(), job.view->revision, transition));
  unit_.mutations.emplace_back(AddTransition{
      .job_id = job.id(), .revision = job.view->revision, .transition = std::move(transition)});
}

void JobEngine::AddDeletionEvent(const JobRecord& job, int64_t revision, absl::string_view actor) {
  Event event;
  event.set_sequence(revision);
  *event.mutable_time() = ToProtoTime(parts_.clock->Now());
  event.set_subject(job.name());
  event.set_from_state(std::string(JobStateName(job.state())));
  event.set_reason(event_reason::kDeleted);
  event.set_message("deleted with its metrics, logs and checkpoints");
  event.set_actor(std::string(actor));
  event.set_generation(job.generation());
  event.set_severity(Event::SEVERITY_NORMAL);
  unit_.events.push_back(std::move(event));
}

void JobEngine::AddJobEvent(const JobRecord& job, int64_t generation, absl::string_view reason,
                            absl::string_view message, Event::Severity severity) {
  Event event;
  event.set_sequence(NextRevision());
  *event.mutable_time() = ToProtoTime(parts_.clock->Now());
  event.set_subject(job.name());
  event.set_from_state(std::string(JobStateName(job.state())));
  event.set_to_state(event.from_state());
  event.set_reason(std::string(reason));
  event.set_message(std::string(message));
  event.set_actor("coordinator");
  event.set_generation(generation);
  event.set_severity(severity);
  unit_.events.push_back(std::move(event));
}

void JobEngine::AddWorkerEvent(WorkerRecord* worker, lasp::v1::Worker::State to,
                               absl::string_view reason, absl::string_view message,
                               absl::string_view actor, Event::Severity severity) {
  Event event;
  event.set_sequence(NextRevision());
  *event.mutable_time() = ToProtoTime(parts_.clock->Now());
  event.set_subject(absl::StrCat("workers/", worker->id()));
  event.set_from_state(WorkerStateName(std::exchange(worker->told_state, to)));
  event.set_to_state(WorkerStateName(to));
  event.set_reason(std::string(reason));
  event.set_message(std::string(message));
  event.set_actor(std::string(actor));
  event.set_severity(severity);
  unit_.events.push_back(std::move(event));
}

void JobEngine::TellConnected(WorkerRecord* worker, bool same_incarnation) {
  // Where it is this coordinator that was away, nothing has happened to the agent.
  if (same_incarnation && worker->told_state == lasp::v1::Worker::STATE_UNSPECIFIED) {
    worker->told_state = worker->state();
    return;
  }
  AddWorkerEvent(worker, worker->state(),
                 same_incarnation ? event_reason::kReconnected : event_reason::kRegistered,
                 worker->Describe(), absl::StrCat("agent/", worker->id()));
}

void JobEngine::TellDrained(WorkerRecord* worker, lasp::v1::Worker::State state) {
  if (state == lasp::v1::Worker::STATE_DRAINED && worker->told_state != state) {
    AddWorkerEvent(worker, state, event_reason::kDrained, "no rank is left on it", "coordinator");
  }
}

}  // namespace lasp::server
