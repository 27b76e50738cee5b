// What users ask of checkpoints.
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/resource_name.h"
#include "server/audit_record.h"
#include "server/checkpoint_not_found.h"
#include "server/event_text.h"
#include "server/job_engine.h"

namespace lasp::server {

using lasp::v1::Checkpoint;

void JobEngine::VerifyCheckpoint(const lasp::v1::VerifyCheckpointRequest& request,
                                 const Caller& caller, const CheckpointCallback& done) {
  const auto [job, record] = FindCheckpoint(request.name());
  if (record == nullptr) {
    AnswerCheckpoint(done, CheckpointNotFound(request.name()));
    return;
  }
  if (record->state() != Checkpoint::STATE_COMMITTED) {
    AnswerCheckpoint(done, ErrorWithReason(absl::StatusCode::kFailedPrecondition,
                                           absl::StrCat(request.name(), " is ",
                                                        CheckpointStateName(record->state()),
                                                        "; only committed ones can be verified"),
                                           "WRONG_STATE"));
    return;
  }
  // Until it has been read it does not count as verified: a reading that fails is tried again.
  record->checkpoint.clear_verify_time();
  StoreCheckpoint(job, *record);
  if (!record->busy) {
    StartTask(job, record, CheckpointTask::Kind::kVerify);
  }
  Audit(caller, audit::kVerifyCheckpoint, *job, absl::StrCat("step ", record->checkpoint.step()));
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
  if (state != Checkpoint::STATE_DELETING) {
    CollectCheckpoint(job, record);
    TellNewestCheckpoint(job);
    Audit(caller, audit::kDeleteCheckpoint, *job, absl::StrCat("step ", record->checkpoint.step()));
  }
  AnswerCheckpoint(done, record->checkpoint);
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
