// What goes from the disk and has no checkpoint's record to ask for it: all that a deleted job has
// written, and what a generation was at when it ended. Stored until it is done.
#include <algorithm>
#include <utility>

#include "proto/checkpoint/manifest.h"
#include "server/job_engine.h"

namespace lasp::server {

void JobEngine::RemoveFolder(const JobRecord& job) {
  if (job.generation() == 0 ||
      (parts_.checkpoint_disk == nullptr && job.checkpoints.records().empty())) {
    return;
  }
  const absl::Duration now = parts_.clock->Monotonic();
  // Ranks of its last generation may still be at one.
  const auto pending = removals_.find(job.id());
  PutRemoval(job, {.uid = job.uid(),
                   .folder = CheckpointFolderOf(job),
                   .generation = 0,
                   .at = now,
                   .quiet_at = pending == removals_.end() ? now : pending->second.quiet_at});
  SweepRemovals(now);
}

void JobEngine::RemoveUnfinished(const JobRecord& job, int64_t generation) {
  if (parts_.checkpoint_disk == nullptr) {
    return;
  }
  const absl::Duration at = parts_.clock->Monotonic() + kRemovalDelay;
  PutRemoval(job, {.uid = job.uid(),
                   .folder = CheckpointFolderOf(job),
                   .generation = generation,
                   .at = at,
                   .quiet_at = at});
}

void JobEngine::PutRemoval(const JobRecord& job, Removal removal) {
  unit_.mutations.emplace_back(PutCheckpointRemoval{.job_id = job.id(),
                                                    .uid = removal.uid,
                                                    .folder = removal.folder,
                                                    .generation = removal.generation});
  removals_[job.id()] = std::move(removal);
}

void JobEngine::StartRemoval(Removal* removal) {
  removal->busy = true;
  const bool all = removal->generation == 0;
  CheckpointTask task{
      .kind = all ? CheckpointTask::Kind::kRemoveJob : CheckpointTask::Kind::kRemoveUnfinished,
      .uid = removal->uid,
      .generation = removal->generation,
      .folder = removal->folder,
      .manifest = {},
      .manifest_digest = {},
      .known = {}};
  if (const auto job = jobs_by_uid_.find(removal->uid); !all && job != jobs_by_uid_.end()) {
    // No other ones of these generations can come: they have ended.
    for (const auto& [key, record] : job->second->checkpoints.records()) {
      if (!record.checkpoint.folder().empty()) {
        task.known.insert(CheckpointFolderName(key.first, key.second));
      }
    }
  }
  unit_.checkpoint_tasks.push_back(std::move(task));
}

void JobEngine::OnRemovalDone(const CheckpointOutcome& outcome) {
  const auto found =
      std::find_if(removals_.begin(), removals_.end(),
                   [&outcome](const auto& entry) { return entry.second.uid == outcome.uid; });
  // Another one may have come in its place.
  if (found == removals_.end() || found->second.generation != outcome.generation) {
    return;
  }
  Removal& removal = found->second;
  removal.busy = false;
  const absl::Duration now = parts_.clock->Monotonic();
  if (!outcome.status.ok()) {
    removal.at = now + kRemovalDelay;
  } else if (now < removal.quiet_at) {
    removal.at = removal.quiet_at;
  } else {
    unit_.mutations.emplace_back(DeleteCheckpointRemoval{.job_id = found->first});
    removals_.erase(found);
  }
}

void JobEngine::SweepRemovals(absl::Duration now) {
  if (parts_.checkpoint_disk == nullptr) {
    return;
  }
  for (auto& [job_id, removal] : removals_) {
    if (!removal.busy && removal.at <= now) {
      StartRemoval(&removal);
    }
  }
}

void JobEngine::RestoreRemovals(const std::vector<PutCheckpointRemoval>& stored) {
  const absl::Duration now = parts_.clock->Monotonic();
  for (const PutCheckpointRemoval& row : stored) {
    // A job that is gone was deleted by a release that did not know of these.
    const bool all = row.generation == 0 || !jobs_by_uid_.contains(row.uid);
    const absl::Duration at = all ? now : now + kRemovalDelay;
    // One whose generation has just been found to have ended has a newer one.
    removals_.try_emplace(row.job_id, Removal{.uid = row.uid,
                                              .folder = row.folder,
                                              .generation = all ? 0 : row.generation,
                                              .at = at,
                                              .quiet_at = at});
  }
}

}  // namespace lasp::server
