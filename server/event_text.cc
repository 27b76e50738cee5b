#include "server/event_text.h"

#include "absl/strings/strip.h"
#include "server/job_state_machine.h"

namespace lasp::server {
namespace {

using Job = lasp::v1::TrainingJob;
using lasp::v1::Event;

std::string StateText(Job::State state) {
  return state == Job::STATE_UNSPECIFIED ? "" : std::string(JobStateName(state));
}

// A generation or the job was lost, and nobody had asked for it.
bool IsLoss(const lasp::v1::Transition& transition) {
  return transition.to_state() == Job::STATE_FAILED ||
         (transition.to_state() == Job::STATE_RECOVERING &&
          transition.reason() != reason::kWorkerDrained);
}

}  // namespace

Event EventOfTransition(const std::string& job_name, int64_t sequence,
                        const lasp::v1::Transition& transition) {
  Event event;
  event.set_sequence(sequence);
  *event.mutable_time() = transition.time();
  event.set_subject(job_name);
  event.set_from_state(StateText(transition.from_state()));
  event.set_to_state(StateText(transition.to_state()));
  event.set_reason(transition.reason());
  event.set_message(transition.message());
  event.set_actor(transition.actor());
  event.set_generation(transition.generation());
  event.set_severity(IsLoss(transition) ? Event::SEVERITY_WARNING : Event::SEVERITY_NORMAL);
  return event;
}

bool ChangesNoState(const Event& event) {
  return !event.to_state().empty() && event.from_state() == event.to_state();
}

std::string WorkerStateName(lasp::v1::Worker::State state) {
  return state == lasp::v1::Worker::STATE_UNSPECIFIED
             ? ""
             : std::string(absl::StripPrefix(lasp::v1::Worker::State_Name(state), "STATE_"));
}

std::string CheckpointStateName(lasp::v1::Checkpoint::State state) {
  return std::string(absl::StripPrefix(lasp::v1::Checkpoint::State_Name(state), "STATE_"));
}

}  // namespace lasp::server
