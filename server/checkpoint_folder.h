// Checkpoints on the disk, as the coordinator sees them: manifests are its to write, shards its to
// read, folders its to remove.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lasp/v1/checkpoint.pb.h"
#include "proto/checkpoint/manifest.h"
#include "server/checkpoint_task.h"

namespace lasp::server {

// Thread-safe, as its files are by their order: a folder is a checkpoint from the rename of its
// manifest until the removal of that. Folders are named beneath the root.
class CheckpointFolder {
 public:
  // Manifests of more bytes are not written: no release would read them.
  explicit CheckpointFolder(std::string root, int64_t max_manifest_bytes = kMaxManifestBytes)
      : root_(std::move(root)), max_manifest_bytes_(max_manifest_bytes) {}

  const std::string& root() const { return root_; }

  // FAILED_PRECONDITION unless the root is a directory that can be written.
  absl::Status Check() const;

  // The digest of the manifest, which is durable with its name. DATA_LOSS where it does not
  // describe a whole checkpoint, or a shard is not there with its size; INVALID_ARGUMENT where it
  // is too large; UNAVAILABLE where the disk refuses. May be repeated.
  absl::StatusOr<std::string> Commit(const std::string& folder,
                                     const lasp::v1::CheckpointManifest& manifest) const;

  // Reads everything back. DATA_LOSS names the file and the block; UNAVAILABLE where it cannot be
  // read; CANCELLED soon after `stop` says so.
  absl::Status Verify(const std::string& folder, const std::string& manifest_digest,
                      const std::function<bool()>& stop) const;

  // See CheckpointDisk::FindCommitted.
  std::vector<FoundCheckpoint> FindCommitted(const std::string& folder) const;

  // The manifest first. OK where there is nothing beneath the root; UNAVAILABLE where that is gone,
  // or the disk refuses.
  absl::Status Remove(const std::string& folder) const;

  // See CheckpointTask::Kind::kRemoveUnfinished; errors as Remove's.
  absl::Status RemoveUnfinished(const std::string& folder, int64_t generation,
                                const std::set<std::string>& known) const;

 private:
  absl::Status CheckRoot() const;
  // The text of the manifest in `folder`.
  absl::StatusOr<std::string> ReadManifest(const std::string& folder) const;
  // UNAVAILABLE, or DATA_LOSS where a shard is not there with its size.
  absl::Status CheckSizes(const std::string& folder,
                          const lasp::v1::CheckpointManifest& manifest) const;
  absl::StatusOr<FoundCheckpoint> ReadCommitted(const std::string& folder) const;

  const std::string root_;
  const int64_t max_manifest_bytes_;
};

}  // namespace lasp::server
