// Checkpoints: from the first rank's shard to the removal of the folder.
#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/checkpoint/manifest.h"
#include "proto/rpc/log.h"
#include "proto/rpc/proto_time.h"
#include "proto/rpc/resource_name.h"
#include "proto/rpc/version.h"
#include "server/event_text.h"
#include "server/job_engine.h"

namespace lasp::server {
namespace {

using Job = lasp::v1::TrainingJob;
using lasp::v1::Checkpoint;

constexpr absl::Duration kRetryInterval = absl::Seconds(5);
// A checkpoint that cannot be committed for so long keeps its job from starting no longer.
constexpr absl::Duration kCommitPatience = absl::Minutes(1);

}  // namespace

int64_t JobEngine::ParentStep(const JobRecord& job) {
  if (!job.run->rebuilt) {
    return job.run->restored_step;
  }
  int64_t parent = 0;
  for (const auto& [key, record] : job.checkpoints.records()) {
    const Checkpoint& checkpoint = record.checkpoint;
    if (record.state() == Checkpoint::STATE_COMMITTED &&
        checkpoint.generation() < job.run->generation) {
      parent = std::max(parent, checkpoint.step());
    }
  }
  return parent;
}

CheckpointRecord& JobEngine::AddCheckpoint(JobRecord* job, int64_t step) {
  const int64_t generation = job->run->generation;
  CheckpointRecord& record = job->checkpoints.records()[{step, generation}];
  Checkpoint& checkpoint = record.checkpoint;
  checkpoint.set_name(absl::StrCat(job->name(), "/checkpoints/", step));
  checkpoint.set_step(step);
  checkpoint.set_generation(generation);
  checkpoint.set_state(Checkpoint::STATE_WRITING);
  checkpoint.set_shard_count(job->world_size);
  checkpoint.set_parent_step(ParentStep(*job));
  checkpoint.set_folder(
      absl::StrCat(CheckpointFolderOf(*job), "/", CheckpointFolderName(step, generation)));
  *checkpoint.mutable_create_time() = ToProtoTime(parts_.clock->Now());
  return record;
}

std::string JobEngine::CheckpointFolderOf(const JobRecord& job) {
  const absl::StatusOr<JobName> name = ParseJobName(job.name());
  return absl::StrCat(name.ok() ? name->project : "unknown", "/", job.uid());
}

void JobEngine::StoreCheckpoint(JobRecord* job, const CheckpointRecord& record) {
  unit_.mutations.emplace_back(PutCheckpoint{.job_id = job->id(), .checkpoint = record.checkpoint});
  PublishCheckpoints(*job);
}

void JobEngine::PublishCheckpoints(const JobRecord& job) {
  unit_.published_checkpoints[job.uid()] =
      std::make_shared<const std::vector<Checkpoint>>(job.checkpoints.View());
}

void JobEngine::AddCheckpointEvent(const JobRecord& job, const CheckpointRecord& record,
                                   absl::string_view message, bool warning) {
  const Checkpoint& checkpoint = record.checkpoint;
  AddJobEvent(job, checkpoint.generation(),
              absl::StrCat(kCheckpointReasonPrefix, CheckpointStateName(checkpoint.state())),
              absl::StrCat("the checkpoint of step ", checkpoint.step(), " ", message),
              warning ? lasp::v1::Event::SEVERITY_WARNING : lasp::v1::Event::SEVERITY_NORMAL);
}

void JobEngine::StartTask(JobRecord* job, CheckpointRecord* record, CheckpointTask::Kind kind) {
  record->busy = true;
  CheckpointTask task{.kind = kind,
                      .uid = job->uid(),
                      .step = record->checkpoint.step(),
                      .generation = record->checkpoint.generation(),
                      .folder = record->checkpoint.folder(),
                      .manifest = {},
                      .manifest_digest = record->checkpoint.manifest_digest(),
                      .known = {}};
  if (kind == CheckpointTask::Kind::kCommit) {
    task.manifest = ManifestOf(*job, *record);
    record->first_commit = std::min(record->first_commit, parts_.clock->Monotonic());
  }
  unit_.checkpoint_tasks.push_back(std::move(task));
}

void JobEngine::RetryTask(JobRecord* job, CheckpointRecord* record, absl::Duration delay) {
  record->retry_at = parts_.clock->Monotonic() + delay;
  checkpoint_retries_.insert(job);
}

lasp::v1::CheckpointManifest JobEngine::ManifestOf(const JobRecord& job,
                                                   const CheckpointRecord& record) const {
  lasp::v1::CheckpointManifest manifest;
  manifest.set_format_version(kManifestVersion);
  manifest.set_training_job(job.name());
  manifest.set_uid(job.uid());
  manifest.set_step(record.checkpoint.step());
  manifest.set_generation(record.checkpoint.generation());
  manifest.set_parent_step(record.checkpoint.parent_step());
  manifest.mutable_spec()->ParseFromString(*job.view->spec);
  manifest.set_spec_digest(SpecDigest(manifest.spec()));
  manifest.set_gemm_record(job.gemm_record);
  *manifest.mutable_create_time() = record.checkpoint.create_time();
  manifest.set_version(std::string(Version()));
  for (const auto& [rank, written] : record.shards) {
    *manifest.add_shards() = written.shard();
    if (rank == 0) {
      *manifest.mutable_tensors() = written.tensors();
      *manifest.mutable_state() = written.state();
    }
  }
  return manifest;
}

void JobEngine::OnShardWritten(const AgentSessionPtr& session,
                               const lasp::v1::ShardWritten& message) {
  const lasp::v1::Fence& fence = message.fence();
  JobRecord* job = FencedJob(*session, fence);
  if (job == nullptr) {
    StopStale(session, fence);
    return;
  }
  NoteAlive(job, fence);
  if (parts_.checkpoint_disk == nullptr || message.step() < 1 ||
      message.step() > job->view->job.progress().max_steps()) {
    LASP_LOG(kWarning, "a checkpoint that nobody asked for was reported",
             {{"training_job", job->name()}, {"step", message.step()}});
    return;
  }
  CheckpointRecord* found = job->checkpoints.Find(message.step(), fence.generation());
  const bool first = found == nullptr;
  CheckpointRecord& record = first ? AddCheckpoint(job, message.step()) : *found;
  // A report may come again, and one of a checkpoint that has failed changes nothing.
  if (record.state() != Checkpoint::STATE_WRITING || record.shards.contains(fence.rank())) {
    return;
  }
  if (message.status().code() != 0 || message.shard().file() != ShardFileName(fence.rank())) {
    FailCheckpoint(job, &record,
                   absl::StrCat("rank ", fence.rank(), " on workers/", session->worker_id(),
                                " could not write it: ", message.status().message()));
    return;
  }
  record.shards[fence.rank()] = message;
  record.checkpoint.set_size_bytes(record.checkpoint.size_bytes() + message.shard().size_bytes());
  unit_.mutations.emplace_back(AddCheckpointShard{.job_id = job->id(),
                                                  .step = message.step(),
                                                  .generation = fence.generation(),
                                                  .rank = fence.rank(),
                                                  .shard = message});
  StoreCheckpoint(job, record);
  if (record.Settling()) {
    StartTask(job, &record, CheckpointTask::Kind::kCommit);
  }
}

void JobEngine::FailCheckpoint(JobRecord* job, CheckpointRecord* record,
                               const std::string& message) {
  record->checkpoint.set_state(Checkpoint::STATE_FAILED);
  record->checkpoint.set_message(message);
  record->shards.clear();
  LASP_LOG(
      kWarning, "checkpoint failed",
      {{"training_job", job->name()}, {"step", record->checkpoint.step()}, {"message", message}});
  parts_.observer->OnCheckpoint(Checkpoint::STATE_FAILED, absl::ZeroDuration());
  AddCheckpointEvent(*job, *record, absl::StrCat("failed: ", message), /*warning=*/true);
  StoreCheckpoint(job, *record);
  RetryTask(job, record, kRemovalDelay);
  schedule_due_ = true;
}

void JobEngine::LoseCheckpoint(JobRecord* job, CheckpointRecord* record,
                               const std::string& message) {
  record->checkpoint.set_state(Checkpoint::STATE_CORRUPT);
  record->checkpoint.set_message(message);
  LASP_LOG(
      kError, "checkpoint is damaged",
      {{"training_job", job->name()}, {"step", record->checkpoint.step()}, {"message", message}});
  parts_.observer->OnCheckpoint(Checkpoint::STATE_CORRUPT, absl::ZeroDuration());
  AddCheckpointEvent(*job, *record, absl::StrCat("is damaged: ", message), /*warning=*/true);
  StoreCheckpoint(job, *record);
  TellNewestCheckpoint(job);
}

void JobEngine::TellNewestCheckpoint(JobRecord* job) {
  const CheckpointRecord* const newest = job->checkpoints.NewestCommitted();
  const int64_t step = newest == nullptr ? 0 : newest->checkpoint.step();
  if (step != job->view->job.checkpoint_step()) {
    Edit(job, /*stored=*/true, [step](Job* changed) { changed->set_checkpoint_step(step); });
  }
}

void JobEngine::EndCheckpointsOf(JobRecord* job, int64_t generation) {
  for (auto& [key, record] : job->checkpoints.records()) {
    if (key.second != generation || record.state() != Checkpoint::STATE_WRITING ||
        record.Settling()) {
      continue;
    }
    FailCheckpoint(job, &record,
                   absl::StrCat("its generation ended before rank ",
                                absl::StrJoin(record.MissingRanks(), ", "), " had written"));
  }
}

void JobEngine::CheckpointDone(const CheckpointOutcome& outcome) {
  if (outcome.kind == CheckpointTask::Kind::kRemoveJob ||
      outcome.kind == CheckpointTask::Kind::kRemoveUnfinished) {
    OnRemovalDone(outcome);
    return;
  }
  const auto found = jobs_by_uid_.find(outcome.uid);
  if (found == jobs_by_uid_.end()) {
    return;
  }
  JobRecord* const job = found->second.get();
  CheckpointRecord* const record = job->checkpoints.Find(outcome.step, outcome.generation);
  if (record == nullptr) {
    return;
  }
  record->busy = false;
  switch (outcome.kind) {
    case CheckpointTask::Kind::kCommit:
      OnCommitted(job, record, outcome);
      return;
    case CheckpointTask::Kind::kVerify:
      OnVerified(job, record, outcome.status);
      return;
    case CheckpointTask::Kind::kRemove:
      OnRemoved(job, record, outcome.status);
      return;
    case CheckpointTask::Kind::kRemoveJob:
    case CheckpointTask::Kind::kRemoveUnfinished:
      return;
  }
}

void JobEngine::OnCommitted(JobRecord* job, CheckpointRecord* record,
                            const CheckpointOutcome& outcome) {
  if (record->state() != Checkpoint::STATE_WRITING) {
    return;
  }
  if (!outcome.status.ok()) {
    const bool for_good = absl::IsDataLoss(outcome.status) ||
                          absl::IsInvalidArgument(outcome.status) ||
                          parts_.clock->Monotonic() - record->first_commit > kCommitPatience;
    if (for_good) {
      FailCheckpoint(job, record,
                     absl::StrCat("could not be committed: ", outcome.status.message()));
    } else {
      RetryTask(job, record, kRetryInterval);
    }
    return;
  }
  const absl::Duration took = parts_.clock->Now() - FromProtoTime(record->checkpoint.create_time());
  record->shards.clear();
  record->checkpoint.set_state(Checkpoint::STATE_COMMITTED);
  record->checkpoint.set_manifest_digest(outcome.manifest_digest);
  *record->checkpoint.mutable_commit_time() = ToProtoTime(parts_.clock->Now());
  parts_.observer->OnCheckpoint(Checkpoint::STATE_COMMITTED, took);
  AddCheckpointEvent(*job, *record,
                     absl::StrCat("is committed, ", record->checkpoint.size_bytes(), " bytes in ",
                                  absl::FormatDuration(took)),
                     /*warning=*/false);
  // Failed ones have told what they had to tell.
  std::erase_if(job->checkpoints.records(), [&](const auto& other) {
    if (other.second.state() != Checkpoint::STATE_FAILED ||
        !other.second.checkpoint.folder().empty() || other.first.first > outcome.step) {
      return false;
    }
    unit_.mutations.emplace_back(DeleteCheckpoint{
        .job_id = job->id(), .step = other.first.first, .generation = other.first.second});
    return true;
  });
  StoreCheckpoint(job, *record);
  if (job->view->job.failures_without_checkpoint() > 0 &&
      outcome.step > job->view->job.checkpoint_step()) {
    Edit(job, /*stored=*/true,
         [](lasp::v1::TrainingJob* changed) { changed->set_failures_without_checkpoint(0); });
  }
  TellNewestCheckpoint(job);
  StartTask(job, record, CheckpointTask::Kind::kVerify);
  // A job may have waited for it.
  schedule_due_ = true;
}

void JobEngine::OnVerified(JobRecord* job, CheckpointRecord* record, const absl::Status& status) {
  if (record->state() != Checkpoint::STATE_COMMITTED) {
    return;
  }
  if (absl::IsDataLoss(status)) {
    LoseCheckpoint(job, record, std::string(status.message()));
    return;
  }
  if (!status.ok()) {
    RetryTask(job, record, kRetryInterval);
    return;
  }
  *record->checkpoint.mutable_verify_time() = ToProtoTime(parts_.clock->Now());
  StoreCheckpoint(job, *record);
  for (const CheckpointBook::Key& key :
       job->checkpoints.Collectable(job->view->job.checkpoint_retention())) {
    CheckpointRecord* const old = job->checkpoints.Find(key.first, key.second);
    if (NeededBy(*job, *old) == nullptr) {
      CollectCheckpoint(job, old);
    }
  }
}

void JobEngine::CollectCheckpoint(JobRecord* job, CheckpointRecord* record) {
  record->checkpoint.set_state(Checkpoint::STATE_DELETING);
  StoreCheckpoint(job, *record);
  StartTask(job, record, CheckpointTask::Kind::kRemove);
}

void JobEngine::OnRemoved(JobRecord* job, CheckpointRecord* record, const absl::Status& status) {
  if (!status.ok()) {
    RetryTask(job, record, kRemovalDelay);
    return;
  }
  if (record->state() == Checkpoint::STATE_FAILED) {
    // Kept for what it tells, until a later one is committed.
    record->checkpoint.clear_folder();
    record->checkpoint.set_size_bytes(0);
    StoreCheckpoint(job, *record);
    return;
  }
  const CheckpointBook::Key key{record->checkpoint.step(), record->checkpoint.generation()};
  unit_.mutations.emplace_back(
      DeleteCheckpoint{.job_id = job->id(), .step = key.first, .generation = key.second});
  job->checkpoints.records().erase(key);
  PublishCheckpoints(*job);
}

void JobEngine::RestoreCheckpoints(JobRecord* job, std::vector<StoredCheckpoint> stored) {
  for (StoredCheckpoint& row : stored) {
    CheckpointRecord& record =
        job->checkpoints.records()[{row.checkpoint.step(), row.checkpoint.generation()}];
    record.checkpoint = std::move(row.checkpoint);
    for (lasp::v1::ShardWritten& shard : row.shards) {
      const int rank = shard.fence().rank();
      record.shards[rank] = std::move(shard);
    }
  }
  if (parts_.checkpoint_disk == nullptr || job->checkpoints.records().empty()) {
    return;
  }
  PublishCheckpoints(*job);
  for (auto& [key, record] : job->checkpoints.records()) {
    if (record.NextTask().has_value()) {
      RetryTask(job, &record, absl::ZeroDuration());
    }
  }
}

void JobEngine::SweepCheckpoints(absl::Duration now) {
  for (auto job = checkpoint_retries_.begin(); job != checkpoint_retries_.end();) {
    bool waits = false;
    for (auto& [key, record] : (*job)->checkpoints.records()) {
      const std::optional<CheckpointTask::Kind> next = record.NextTask();
      if (!next.has_value() || record.busy) {
        continue;
      }
      if (record.retry_at <= now) {
        StartTask(*job, &record, *next);
      } else {
        waits = true;
      }
    }
    job = waits ? std::next(job) : checkpoint_retries_.erase(job);
  }
}

}  // namespace lasp::server
