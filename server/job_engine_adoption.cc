// Checkpoints that a store restored from a backup does not know: they were committed since.
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/checkpoint/manifest.h"
#include "proto/rpc/log.h"
#include "server/job_engine.h"

namespace lasp::server {

using lasp::v1::Checkpoint;

void JobEngine::AdoptCheckpoints() {
  if (parts_.checkpoint_disk == nullptr) {
    return;
  }
  int64_t adopted = 0;
  for (const auto& [uid, job] : jobs_by_uid_) {
    for (FoundCheckpoint& found : parts_.checkpoint_disk->FindCommitted(CheckpointFolderOf(*job))) {
      adopted += AdoptCheckpoint(job.get(), std::move(found)) ? 1 : 0;
    }
    TellNewestCheckpoint(job.get());
  }
  unit_.mutations.emplace_back(EndAdoption{});
  LASP_LOG(kInfo, "checkpoints committed after the backup were looked for", {{"adopted", adopted}});
}

bool JobEngine::AdoptCheckpoint(JobRecord* job, FoundCheckpoint found) {
  const lasp::v1::CheckpointManifest& manifest = found.manifest;
  const std::string folder = absl::StrCat(
      CheckpointFolderOf(*job), "/", CheckpointFolderName(manifest.step(), manifest.generation()));
  if (manifest.uid() != job->uid() || found.folder != folder) {
    LASP_LOG(kWarning, "a checkpoint lies in the folder of another one",
             {{"folder", found.folder}, {"is_of", folder}, {"uid", manifest.uid()}});
    return false;
  }
  CheckpointRecord* const known = job->checkpoints.Find(manifest.step(), manifest.generation());
  if (known != nullptr && known->state() != Checkpoint::STATE_WRITING) {
    return false;
  }
  CheckpointRecord& record = job->checkpoints.records()[{manifest.step(), manifest.generation()}];
  record = {};
  Checkpoint& checkpoint = record.checkpoint;
  checkpoint.set_name(absl::StrCat(job->name(), "/checkpoints/", manifest.step()));
  checkpoint.set_step(manifest.step());
  checkpoint.set_generation(manifest.generation());
  checkpoint.set_state(Checkpoint::STATE_COMMITTED);
  checkpoint.set_shard_count(manifest.shards_size());
  checkpoint.set_parent_step(manifest.parent_step());
  checkpoint.set_folder(std::move(found.folder));
  checkpoint.set_manifest_digest(std::move(found.manifest_digest));
  *checkpoint.mutable_create_time() = manifest.create_time();
  *checkpoint.mutable_commit_time() = manifest.create_time();
  for (const lasp::v1::CheckpointShard& shard : manifest.shards()) {
    checkpoint.set_size_bytes(checkpoint.size_bytes() + shard.size_bytes());
  }
  if (job->gemm_record.empty()) {
    job->gemm_record = manifest.gemm_record();
  }
  AddCheckpointEvent(*job, record, "was found on the disk: the store's backup is older than it",
                     /*warning=*/false);
  StoreCheckpoint(job, record);
  // It is read back before others are collected for its sake.
  RetryTask(job, &record, absl::ZeroDuration());
  return true;
}

}  // namespace lasp::server
