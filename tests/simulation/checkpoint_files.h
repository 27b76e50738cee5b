// The disk that ranks write their shards to and the coordinator its manifests, as it would lie
// beneath --checkpoint_root; it outlives every process.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "lasp/v1/checkpoint.pb.h"
#include "tests/simulation/context.h"

namespace lasp::simulation {

class CheckpointFiles {
 public:
  explicit CheckpointFiles(Context* context) : context_(context) {}

  // What rank `rank` writes of a step: its size tells it from any other shard of the job.
  static lasp::v1::CheckpointShard ShardOf(int64_t step, int64_t generation, int rank);

  // Until then it takes and gives nothing.
  void BreakUntil(absl::Duration end) { broken_until_ = end; }

  bool broken() const { return context_->now() < broken_until_; }

  // A bit of one shard flips, in one of the folders; nothing where there is none.
  void Damage(Random* random);

  // For what is said: without the job's uid, which is another in each run of a seed.
  static std::string NameOf(const std::string& folder);

  // --- a rank ---
  void Write(const std::string& folder, const lasp::v1::CheckpointShard& shard);

  // --- the coordinator, as server::CheckpointFolder ---
  absl::StatusOr<std::string> Commit(const std::string& folder,
                                     const lasp::v1::CheckpointManifest& manifest);
  absl::Status Verify(const std::string& folder, const std::string& manifest_digest) const;
  void Remove(const std::string& folder);
  // All folders beneath this one.
  void RemoveAll(const std::string& parent);
  void RemoveUnfinished(const std::string& parent, int64_t generation,
                        const std::set<std::string>& known);

  // --- the checker ---
  // Why the folder is not the checkpoint of so many ranks with this digest; empty where it is, but
  // for bits that a fault has flipped.
  std::string Fault(const std::string& folder, int shard_count,
                    const std::string& manifest_digest) const;
  // Those with a manifest.
  std::set<std::string> Committed() const;

 private:
  struct Folder {
    // Sizes by name.
    std::map<std::string, int64_t> shards;
    std::set<std::string> damaged;
    std::optional<lasp::v1::CheckpointManifest> manifest;
  };

  static std::string DigestOf(const lasp::v1::CheckpointManifest& manifest);

  Context* const context_;
  absl::Duration broken_until_;
  std::map<std::string, Folder> folders_;
  // In the order in which they came, some that are gone included.
  std::vector<std::string> names_;
};

}  // namespace lasp::simulation
