#include "tests/simulation/checker.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace lasp::simulation {
namespace {

using Job = lasp::v1::TrainingJob;

bool IsTerminal(Job::State state) {
  return state == Job::STATE_SUCCEEDED || state == Job::STATE_FAILED ||
         state == Job::STATE_CANCELLED;
}

// The table of a job's states, written down a second time.
bool MayFollow(Job::State from, Job::State to) {
  switch (from) {
    case Job::STATE_UNSPECIFIED:
      return to == Job::STATE_QUEUED;
    case Job::STATE_QUEUED:
      return to == Job::STATE_STARTING || to == Job::STATE_FAILED || to == Job::STATE_CANCELLED ||
             to == Job::STATE_SUSPENDED;
    case Job::STATE_STARTING:
      return to == Job::STATE_RUNNING || to == Job::STATE_RECOVERING || to == Job::STATE_FAILED ||
             to == Job::STATE_CANCELLING || to == Job::STATE_SUSPENDING;
    case Job::STATE_RUNNING:
      return to == Job::STATE_RECOVERING || to == Job::STATE_FAILED || to == Job::STATE_SUCCEEDED ||
             to == Job::STATE_CANCELLING || to == Job::STATE_SUSPENDING;
    case Job::STATE_RECOVERING:
      return to == Job::STATE_STARTING || to == Job::STATE_SUCCEEDED || to == Job::STATE_FAILED ||
             to == Job::STATE_CANCELLING || to == Job::STATE_SUSPENDING;
    case Job::STATE_SUSPENDING:
      return to == Job::STATE_SUSPENDED || to == Job::STATE_SUCCEEDED || to == Job::STATE_FAILED ||
             to == Job::STATE_CANCELLING;
    case Job::STATE_SUSPENDED:
      return to == Job::STATE_QUEUED || to == Job::STATE_CANCELLED;
    case Job::STATE_CANCELLING:
      return to == Job::STATE_CANCELLED;
    default:
      return false;
  }
}

std::string Describe(const JobShadow& job) {
  return absl::StrCat(job.name, " (", Job::State_Name(job.state), ", generation ", job.generation,
                      ")");
}

std::string Describe(const lasp::v1::Fence& fence) {
  return absl::StrCat(fence.training_job(), " generation ", fence.generation(), " rank ",
                      fence.rank());
}

}  // namespace

const JobShadow* Checker::FindByUid(const std::string& uid) const {
  for (const auto& [id, job] : jobs_) {
    if (job.uid == uid) {
      return &job;
    }
  }
  return nullptr;
}

void Checker::OnCommit(const std::vector<server::Mutation>& mutations) {
  touched_.clear();
  for (const server::Mutation& mutation : mutations) {
    std::visit([this](const auto& m) { Take(m); }, mutation);
  }
  for (const int64_t id : touched_) {
    if (const auto job = jobs_.find(id); job != jobs_.end()) {
      CheckJob(job->second);
    }
  }
  if (!touched_.empty()) {
    CheckPlaces();
  }
}

void Checker::Take(const server::PutJob& mutation) {
  const Job& job = mutation.view->job;
  touched_.insert(mutation.view->id);
  if (mutation.created != !jobs_.contains(mutation.view->id)) {
    context_->Violate(Invariant::kNothingLost,
                      absl::StrCat(job.name(), mutation.created ? " is created twice"
                                                                : " is stored and was never made"));
    return;
  }
  JobShadow& shadow = jobs_[mutation.view->id];
  if (IsTerminal(shadow.state) && job.state() != shadow.state) {
    context_->Violate(Invariant::kTerminal,
                      absl::StrCat(Describe(shadow), " becomes ", Job::State_Name(job.state())));
  }
  if (mutation.view->revision <= shadow.revision) {
    context_->Violate(Invariant::kNothingLost,
                      absl::StrCat(Describe(shadow), " goes back from revision ", shadow.revision,
                                   " to ", mutation.view->revision));
  }
  if (job.generation() < shadow.generation) {
    context_->Violate(Invariant::kGenerationStored,
                      absl::StrCat(Describe(shadow), " goes back to ", job.generation()));
  }
  if (job.generation() != shadow.generation) {
    shadow.exits.clear();
  }
  if (job.restored_step() > 0) {
    shadow.starts[job.generation()] = {job.restored_step(), job.restored_generation()};
  }
  shadow.name = job.name();
  shadow.uid = job.uid();
  shadow.state = job.state();
  shadow.revision = mutation.view->revision;
  shadow.generation = job.generation();
  shadow.max_steps = job.progress().max_steps();
  shadow.places.assign(static_cast<size_t>(job.placements_size()), {});
  for (const auto& place : job.placements()) {
    shadow.places[static_cast<size_t>(place.rank())] = {place.worker(), place.slot()};
  }
}

void Checker::Take(const server::DeleteJob& mutation) {
  const auto found = jobs_.find(mutation.job_id);
  if (found == jobs_.end() || !IsTerminal(found->second.state)) {
    context_->Violate(Invariant::kTerminal,
                      absl::StrCat(mutation.name, " is deleted and had not ended"));
    return;
  }
  jobs_.erase(found);
}

void Checker::Take(const server::AddTransition& mutation) {
  touched_.insert(mutation.job_id);
  JobShadow& shadow = jobs_[mutation.job_id];
  const lasp::v1::Transition& transition = mutation.transition;
  if (transition.from_state() != shadow.transition_state ||
      !MayFollow(transition.from_state(), transition.to_state())) {
    context_->Violate(
        Invariant::kTerminal,
        absl::StrCat(Describe(shadow), " was ", Job::State_Name(shadow.transition_state),
                     " and goes from ", Job::State_Name(transition.from_state()), " to ",
                     Job::State_Name(transition.to_state()), " (", transition.reason(), ")"));
  }
  if (mutation.revision <= shadow.transition_revision) {
    context_->Violate(Invariant::kNothingLost,
                      absl::StrCat(Describe(shadow), ": a transition with revision ",
                                   mutation.revision, " after ", shadow.transition_revision));
  }
  shadow.transition_state = transition.to_state();
  shadow.transition_revision = mutation.revision;
}

void Checker::Take(const server::AddGeneration& mutation) {
  touched_.insert(mutation.job_id);
  JobShadow& shadow = jobs_[mutation.job_id];
  if (!shadow.generations.empty() && *shadow.generations.rbegin() >= mutation.generation) {
    context_->Violate(Invariant::kGenerationStored,
                      absl::StrCat(Describe(shadow), " starts generation ", mutation.generation,
                                   " after ", *shadow.generations.rbegin()));
  }
  shadow.generations.insert(mutation.generation);
}

void Checker::Take(const server::PutRankExit& mutation) {
  const auto found = jobs_.find(mutation.job_id);
  if (found == jobs_.end()) {
    return;
  }
  if (mutation.generation != found->second.generation) {
    context_->Violate(Invariant::kOneGeneration,
                      absl::StrCat(Describe(found->second), " takes an exit of generation ",
                                   mutation.generation));
  }
  found->second.exits[mutation.rank] = mutation.exit_code;
}

void Checker::Take(const server::PutSteps& mutation) {
  const auto found = jobs_.find(mutation.job_id);
  if (found == jobs_.end()) {
    return;
  }
  JobShadow& shadow = found->second;
  for (const lasp::v1::StepMetrics& step : mutation.steps) {
    if (step.generation() != shadow.generation ||
        step.token_count() != Origin(step.generation(), step.step())) {
      context_->Violate(
          Invariant::kOneGeneration,
          absl::StrCat(Describe(shadow), " takes step ", step.step(), " of generation ",
                       step.token_count() / kOrigin, " as one of ", step.generation()));
    }
    shadow.steps[step.step()].insert(step.generation());
  }
}

void Checker::Take(const server::PutCheckpoint& mutation) {
  const auto found = jobs_.find(mutation.job_id);
  if (found == jobs_.end()) {
    return;
  }
  const lasp::v1::Checkpoint& checkpoint = mutation.checkpoint;
  found->second.checkpoints[{checkpoint.step(), checkpoint.generation()}] = checkpoint;
  CheckCheckpoint(found->second, checkpoint);
}

void Checker::Take(const server::DeleteCheckpoint& mutation) {
  if (const auto found = jobs_.find(mutation.job_id); found != jobs_.end()) {
    found->second.checkpoints.erase({mutation.step, mutation.generation});
  }
}

void Checker::CheckCheckpoint(const JobShadow& job, const lasp::v1::Checkpoint& checkpoint) {
  if (checkpoint.state() != lasp::v1::Checkpoint::STATE_COMMITTED) {
    return;
  }
  const std::string fault =
      files_->Fault(checkpoint.folder(), checkpoint.shard_count(), checkpoint.manifest_digest());
  if (!fault.empty()) {
    context_->Violate(
        Invariant::kManifestWhole,
        absl::StrCat(Describe(job), ": its checkpoint of step ", checkpoint.step(),
                     " by generation ", checkpoint.generation(), " is committed and ", fault));
  }
}

void Checker::CheckCheckpoints() {
  for (const auto& [id, job] : jobs_) {
    for (const auto& [key, checkpoint] : job.checkpoints) {
      CheckCheckpoint(job, checkpoint);
    }
  }
}

void Checker::OnRemoval(const std::string& uid, int64_t step, int64_t generation) {
  const JobShadow* const job = FindByUid(uid);
  if (job == nullptr) {
    return;
  }
  const auto found = job->checkpoints.find({step, generation});
  if (found != job->checkpoints.end() &&
      found->second.state() == lasp::v1::Checkpoint::STATE_COMMITTED) {
    context_->Violate(Invariant::kManifestWhole,
                      absl::StrCat(Describe(*job), ": its checkpoint of step ", step,
                                   " is removed and is committed"));
  }
}

void Checker::OnRemoval(const std::string& uid) {
  if (const JobShadow* const job = FindByUid(uid); job != nullptr) {
    context_->Violate(
        Invariant::kManifestWhole,
        absl::StrCat(Describe(*job), " loses all its checkpoints and is not deleted"));
  }
}

void Checker::CheckJob(const JobShadow& job) {
  if (job.state != job.transition_state) {
    context_->Violate(Invariant::kTerminal,
                      absl::StrCat(Describe(job), " has no transition to its state"));
  }
  if (job.generation > 0 && !job.generations.contains(job.generation)) {
    context_->Violate(Invariant::kGenerationStored,
                      absl::StrCat(Describe(job), ": its generation is not stored"));
  }
  if (job.state != Job::STATE_SUCCEEDED) {
    return;
  }
  CheckHistory(job);
}

// Every step is stored, of the generation that trained what was gone on from.
void Checker::CheckHistory(const JobShadow& job) {
  int64_t generation = job.generation;
  for (int64_t step = job.max_steps; step >= 1; --step) {
    for (auto start = job.starts.find(generation);
         start != job.starts.end() && step <= start->second.first;
         start = job.starts.find(generation)) {
      generation = start->second.second;
    }
    const auto row = job.steps.find(step);
    if (row == job.steps.end() || !row->second.contains(generation)) {
      context_->Violate(Invariant::kNothingLost,
                        absl::StrCat(Describe(job), ": its step ", step, " of ", job.max_steps,
                                     ", of generation ", generation, ", was never stored"));
      return;
    }
  }
}

void Checker::CheckPlaces() {
  std::map<std::pair<std::string, int>, const JobShadow*> taken;
  for (const auto& [id, job] : jobs_) {
    if (!job.live()) {
      continue;
    }
    for (size_t rank = 0; rank < job.places.size(); ++rank) {
      // One that is done has left its slot to others.
      if (job.exits.contains(static_cast<int>(rank))) {
        continue;
      }
      const auto [place, is_new] = taken.try_emplace(job.places[rank], &job);
      if (!is_new) {
        context_->Violate(
            Invariant::kSlotOnce,
            absl::StrCat("slot ", job.places[rank].second, " of ", job.places[rank].first,
                         " is given to ", Describe(job), " and to ", Describe(*place->second)));
      }
    }
  }
}

void Checker::OnLoad(const server::StoreContents& contents) {
  std::set<std::string> found;
  for (const server::StoredJob& stored : contents.jobs) {
    found.insert(stored.view->job.uid());
    const JobShadow* const shadow = FindByUid(stored.view->job.uid());
    if (shadow == nullptr) {
      context_->Violate(Invariant::kNothingLost,
                        absl::StrCat(stored.view->job.name(), " comes back and was deleted"));
      continue;
    }
    if (shadow->revision != stored.view->revision || shadow->state != stored.view->job.state()) {
      context_->Violate(
          IsTerminal(shadow->state) ? Invariant::kTerminal : Invariant::kNothingLost,
          absl::StrCat(Describe(*shadow), " of revision ", shadow->revision, " comes back as ",
                       Job::State_Name(stored.view->job.state()), " of ", stored.view->revision));
    }
    for (const server::StoredCheckpoint& row : stored.checkpoints) {
      CheckCheckpoint(*shadow, row.checkpoint);
    }
    if (stored.checkpoints.size() != shadow->checkpoints.size()) {
      context_->Violate(
          Invariant::kNothingLost,
          absl::StrCat(Describe(*shadow), " comes back with ", stored.checkpoints.size(), " of ",
                       shadow->checkpoints.size(), " checkpoints"));
    }
    std::map<int, int> exits;
    for (const server::StoredRankExit& exit : stored.exits) {
      exits[exit.rank] = exit.exit_code;
    }
    if (shadow->live() && exits != shadow->exits) {
      context_->Violate(Invariant::kNothingLost,
                        absl::StrCat(Describe(*shadow), " comes back with ", exits.size(), " of ",
                                     shadow->exits.size(), " exits"));
    }
  }
  for (const auto& [id, job] : jobs_) {
    if (!found.contains(job.uid)) {
      context_->Violate(Invariant::kNothingLost, absl::StrCat(Describe(job),
                                                              " was stored and is "
                                                              "gone"));
    }
  }
  for (const std::string& uid : created_) {
    if (!found.contains(uid)) {
      context_->Violate(Invariant::kNothingLost,
                        absl::StrCat("the job ", uid, " was acknowledged and is gone"));
    }
  }
}

void Checker::OnSend(const lasp::v1::ConnectResponse& message) {
  if (!message.has_assignment() && !message.has_peer_addresses() && !message.has_start()) {
    return;
  }
  const lasp::v1::Fence& fence = message.has_assignment()       ? message.assignment().fence()
                                 : message.has_peer_addresses() ? message.peer_addresses().fence()
                                                                : message.start().fence();
  const JobShadow* const job = FindByUid(fence.uid());
  if (job == nullptr || fence.generation() > job->generation ||
      !job->generations.contains(fence.generation())) {
    context_->Violate(
        Invariant::kGenerationStored,
        absl::StrCat(Describe(fence), " is told to ", message.has_assignment() ? "start" : "go on",
                     ", and its generation is not durable"));
  }
  if (job != nullptr && message.has_assignment() && message.assignment().has_restore_from()) {
    CheckStart(*job, message.assignment());
  }
}

void Checker::CheckStart(const JobShadow& job, const lasp::v1::Assignment& assignment) {
  const lasp::v1::CheckpointReference& from = assignment.restore_from();
  const auto found = job.checkpoints.find({from.step(), from.generation()});
  // One that is found to be damaged while the generation begins ends it a little later.
  if (found == job.checkpoints.end() ||
      (found->second.state() != lasp::v1::Checkpoint::STATE_COMMITTED &&
       found->second.state() != lasp::v1::Checkpoint::STATE_CORRUPT) ||
      found->second.manifest_digest() != from.manifest_digest()) {
    context_->Violate(
        Invariant::kManifestWhole,
        absl::StrCat(Describe(assignment.fence()), " goes on from step ", from.step(),
                     " of generation ", from.generation(), ", which is not committed"));
  }
}

void Checker::OnAcknowledged(const std::string& worker, const lasp::v1::ConnectRequest& report) {
  const lasp::v1::Fence& fence =
      report.has_rank_exited() ? report.rank_exited().fence() : report.step_reports().fence();
  const JobShadow* const job = FindByUid(fence.uid());
  // What is stale, or of a rank that counts as gone, is acknowledged without being stored. That a
  // job still runs says that none of its ranks was given up.
  if (job == nullptr || !job->live() || job->generation != fence.generation()) {
    return;
  }
  const auto rank = static_cast<size_t>(fence.rank());
  if (rank >= job->places.size() || job->places[rank].first != "workers/" + worker) {
    return;
  }
  if (report.has_rank_exited()) {
    if (!job->exits.contains(fence.rank())) {
      context_->Violate(Invariant::kNothingLost, absl::StrCat("the exit of ", Describe(fence),
                                                              " is acknowledged and not stored"));
    }
    return;
  }
  for (const lasp::v1::StepMetrics& step : report.step_reports().steps()) {
    const auto row = job->steps.find(step.step());
    if (!job->exits.contains(fence.rank()) &&
        (row == job->steps.end() || !row->second.contains(fence.generation()))) {
      context_->Violate(Invariant::kNothingLost,
                        absl::StrCat("step ", step.step(), " of ", Describe(fence),
                                     " is acknowledged and not stored"));
    }
  }
}

}  // namespace lasp::simulation
