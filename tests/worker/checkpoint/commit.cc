#include "tests/worker/checkpoint/commit.h"

#include <fstream>

#include "absl/strings/str_cat.h"
#include "proto/checkpoint/manifest.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/status_macros.h"
#include "proto/spec/spec_defaults.h"

namespace lasp::worker {

absl::StatusOr<lasp::v1::CheckpointReference> CommitCheckpoint(
    const std::string& root, const std::string& folder, const lasp::v1::TrainingSpec& spec,
    const std::vector<lasp::v1::ShardWritten>& shards) {
  lasp::v1::CheckpointManifest manifest;
  manifest.set_format_version(kManifestVersion);
  manifest.set_step(shards[0].step());
  manifest.set_generation(shards[0].fence().generation());
  *manifest.mutable_spec() = spec;
  FillDefaults(manifest.mutable_spec());
  manifest.set_spec_digest(SpecDigest(manifest.spec()));
  for (const lasp::v1::ShardWritten& shard : shards) {
    LASP_RETURN_IF_ERROR(StatusFromProto(shard.status()));
    if (shard.step() != manifest.step()) {
      return absl::InternalError("shards of two steps");
    }
    *manifest.add_shards() = shard.shard();
    if (shard.fence().rank() == 0) {
      *manifest.mutable_tensors() = shard.tensors();
      *manifest.mutable_state() = shard.state();
    }
  }
  LASP_RETURN_IF_ERROR(CheckManifest(manifest));
  LASP_ASSIGN_OR_RETURN(const std::string text, ManifestText(manifest));
  lasp::v1::CheckpointReference reference;
  reference.set_folder(
      absl::StrCat(folder, "/", CheckpointFolderName(manifest.step(), manifest.generation())));
  reference.set_step(manifest.step());
  reference.set_generation(manifest.generation());
  reference.set_manifest_digest(ManifestDigest(text));
  std::ofstream file(absl::StrCat(root, "/", reference.folder(), "/", kManifestFile),
                     std::ios::binary);
  file << text;
  file.close();
  return file.good() ? absl::StatusOr<lasp::v1::CheckpointReference>(reference)
                     : absl::InternalError("cannot write a manifest");
}

}  // namespace lasp::worker
