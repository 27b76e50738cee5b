// What users ask of checkpoints.
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/checkpoint/manifest.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/resource_name.h"
#include "server/audit_record.h"
#include "server/event_text.h"
#include "server/job_engine.h"
#include "server/not_found.h"

namespace lasp::server {

using lasp::v1::Checkpoint;

absl::StatusOr<std::pair<JobRecord*, CheckpointRecord*>> JobEngine::FindCommitted(
    const std::string& name, absl::string_view verb) {
  const auto found = FindCheckpoint(name);
  if (found.second == nullptr) {
    return CheckpointNotFound(name);
  }
  if (found.second->state() != Checkpoint::STATE_COMMITTED) {
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition,
                           absl::StrCat(name, " is ", CheckpointStateName(found.second->state()),
                                        "; only committed ones can be ", verb),
                           "WRONG_STATE");
  }
  return found;
}

void JobEngine::VerifyCheckpoint(const lasp::v1::VerifyCheckpointRequest& request,
                                 const Caller& caller, const CheckpointCallback& done) {
  const auto found = FindCommitted(request.name(), "verified");
  if (!found.ok()) {
    AnswerCheckpoint(done, found.status());
    return;
  }
  const auto& [job, record] = *found;
  // Until it has been read it does not count as verified: a reading that fails is tried again.
  record->checkpoint.clear_verify_time();
  StoreCheckpoint(job, *record);
  if (!record->busy) {
    StartTask(job, record, CheckpointTask::Kind::kVerify);
  }
  Audit(caller, audit::kVerifyCheckpoint, *job, absl::StrCat("step ", record->checkpoint.step()));
  AnswerCheckpoint(done, record->checkpoint);
}

void JobEngine::ExportCheckpoint(const lasp::v1::ExportCheckpointRequest& request,
                                 const Caller& caller, const CheckpointCallback& done) {
  const auto found = FindCommitted(request.name(), "exported");
  if (!found.ok()) {
    AnswerCheckpoint(done, found.status());
    return;
  }
  const auto& [job, record] = *found;
  Audit(caller, audit::kExportCheckpoint, *job, absl::StrCat("step ", record->checkpoint.step()));
  AnswerCheckpoint(done, record->checkpoint);
}

void JobEngine::RemoveCheckpoint(const lasp::v1::DeleteCheckpointRequest& request,
                                 const Caller& caller, const CheckpointCallback& done) {
  const auto [job, record] = FindCheckpoint(request.name());
  if (record == nullptr) {
    AnswerCheckpoint(done, CheckpointNotFound(request.name()));
    return;
  }
  const Checkpoint::State state = record->state();
  const bool in_use = record == job->checkpoints.NewestCommitted() && !IsFinished(job->state());
  if (state == Checkpoint::STATE_WRITING || in_use) {
    AnswerCheckpoint(done,
                     ErrorWithReason(absl::StatusCode::kFailedPrecondition,
                                     in_use ? absl::StrCat(job->name(), " would resume from ",
                                                           request.name(), "; cancel the job first")
                                            : absl::StrCat(request.name(), " is being written"),
                                     in_use ? "CHECKPOINT_IN_USE" : "WRONG_STATE"));
    return;
  }
  if (const JobRecord* const other = NeededBy(*job, *record); other != nullptr) {
    AnswerCheckpoint(
        done, ErrorWithReason(absl::StatusCode::kFailedPrecondition,
                              absl::StrCat(other->name(), " was started from ", request.name(),
                                           " and has none of its own yet"),
                              "CHECKPOINT_IN_USE"));
    return;
  }
  if (state != Checkpoint::STATE_DELETING) {
    CollectCheckpoint(job, record);
    TellNewestCheckpoint(job);
    Audit(caller, audit::kDeleteCheckpoint, *job, absl::StrCat("step ", record->checkpoint.step()));
  }
  AnswerCheckpoint(done, record->checkpoint);
}

const CheckpointRecord* JobEngine::StartOf(const JobRecord& job) {
  const CheckpointRecord* const own = job.checkpoints.NewestCommitted();
  if (own != nullptr || job.start_from().empty()) {
    return own;
  }
  const CheckpointRecord* const start = FindCheckpoint(job.start_from()).second;
  return start != nullptr && start->state() == Checkpoint::STATE_COMMITTED ? start : nullptr;
}

const CheckpointRecord* JobEngine::StartOfRun(const JobRecord& job) {
  if (job.run->restored_step == 0 || job.run->rebuilt) {
    return nullptr;
  }
  if (const CheckpointRecord* const own =
          job.checkpoints.Find(job.run->restored_step, job.run->restored_generation);
      own != nullptr) {
    return own;
  }
  const CheckpointRecord* const start =
      job.start_from().empty() ? nullptr : FindCheckpoint(job.start_from()).second;
  return start != nullptr && start->checkpoint.step() == job.run->restored_step &&
                 start->checkpoint.generation() == job.run->restored_generation
             ? start
             : nullptr;
}

absl::Status JobEngine::ResolveStart(const std::string& project, lasp::v1::TrainingJob* job) {
  if (job->start_from().empty()) {
    return absl::OkStatus();
  }
  const auto refuse = [](const std::string& why) {
    return InvalidFields({{"start_from", why}}, "INVALID_REQUEST");
  };
  if (parts_.checkpoint_disk == nullptr) {
    return refuse("names a checkpoint, and this coordinator keeps none: --checkpoint_root");
  }
  constexpr absl::string_view kLatest = "/checkpoints/latest";
  const bool latest = absl::EndsWith(job->start_from(), kLatest);
  const JobRecord* source = nullptr;
  const CheckpointRecord* record = nullptr;
  if (latest) {
    source = FindJob(std::string(absl::StripSuffix(job->start_from(), kLatest)));
    record = source == nullptr ? nullptr : source->checkpoints.NewestCommitted();
  } else {
    std::tie(source, record) = FindCheckpoint(job->start_from());
  }
  const bool same_project =
      source != nullptr &&
      absl::StartsWith(source->name(), absl::StrCat("projects/", project, "/"));
  if (!same_project || record == nullptr || record->state() != Checkpoint::STATE_COMMITTED) {
    return refuse(absl::StrCat("'", job->start_from(),
                               "' is no committed checkpoint of a job of the same project: 'lasp "
                               "checkpoints list JOB' shows what there is"));
  }
  lasp::v1::TrainingSpec spec;
  spec.ParseFromString(*source->view->spec);
  if (!SameTraining(spec, job->spec())) {
    return refuse(
        absl::StrCat("is of a job with another spec, ", source->name(),
                     ": only parallelism, memory, device, recovery, checkpoint and time limits "
                     "may differ"));
  }
  job->set_start_from(absl::StrCat(source->name(), "/checkpoints/", record->checkpoint.step()));
  return absl::OkStatus();
}

const JobRecord* JobEngine::NeededBy(const JobRecord& job, const CheckpointRecord& record) const {
  const auto [first, last] = started_from_.equal_range(job.name());
  const std::string name = absl::StrCat(job.name(), "/checkpoints/", record.checkpoint.step());
  for (auto entry = first; entry != last; ++entry) {
    const JobRecord& other = *entry->second;
    if (other.start_from() == name && !IsFinished(other.state()) &&
        other.checkpoints.NewestCommitted() == nullptr) {
      return &other;
    }
  }
  return nullptr;
}

const JobRecord* JobEngine::NeededBy(const JobRecord& job) const {
  for (const auto& [key, record] : job.checkpoints.records()) {
    if (const JobRecord* const other = NeededBy(job, record); other != nullptr) {
      return other;
    }
  }
  return nullptr;
}

std::pair<JobRecord*, CheckpointRecord*> JobEngine::FindCheckpoint(const std::string& name) {
  const absl::StatusOr<CheckpointName> parsed = ParseCheckpointName(name);
  JobRecord* const job = parsed.ok() ? FindJob(parsed->job.ToString()) : nullptr;
  if (job == nullptr) {
    return {nullptr, nullptr};
  }
  return {job, job->checkpoints.Newest(parsed->step)};
}

void JobEngine::AnswerCheckpoint(const CheckpointCallback& done,
                                 absl::StatusOr<Checkpoint> answer) {
  unit_.callbacks.emplace_back([done, answer = std::move(answer)] { done(answer); });
}

}  // namespace lasp::server
