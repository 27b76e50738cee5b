// What the controller wants done with checkpoints on the disk, and what came of it.
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "lasp/v1/checkpoint.pb.h"

namespace lasp::server {

// Ranks that are being killed may still write so long.
inline constexpr absl::Duration kRemovalDelay = absl::Minutes(1);

struct CheckpointTask {
  enum class Kind {
    // Writes the manifest: from then on it is a checkpoint.
    kCommit,
    // Reads all of it back.
    kVerify,
    // Removes it with its folder.
    kRemove,
    // Removes all that a job has written.
    kRemoveJob,
    // Removes what a job's generations up to `generation` have begun and not finished: checkpoints'
    // folders without a manifest, but for those that are `known`.
    kRemoveUnfinished,
  };

  Kind kind = Kind::kCommit;
  std::string uid;
  int64_t step = 0;
  int64_t generation = 0;
  // Beneath --checkpoint_root.
  std::string folder;
  // To be committed.
  lasp::v1::CheckpointManifest manifest;
  // To be verified: what the manifest's digest should be.
  std::string manifest_digest;
  // Folders beneath `folder` that are the controller's to judge.
  std::set<std::string> known;
};

struct CheckpointOutcome {
  CheckpointTask::Kind kind = CheckpointTask::Kind::kCommit;
  std::string uid;
  int64_t step = 0;
  int64_t generation = 0;
  // DATA_LOSS: it is damaged, and will not be better. Others may pass.
  absl::Status status;
  // Of the manifest that a commit wrote.
  std::string manifest_digest;
};

// A checkpoint that lies on the disk, by its manifest.
struct FoundCheckpoint {
  std::string folder;
  lasp::v1::CheckpointManifest manifest;
  std::string manifest_digest;
};

// Thread-safe. Does tasks elsewhere: those of one job's checkpoint in the order in which they were
// given, but for readings, which take long.
class CheckpointDisk {
 public:
  virtual ~CheckpointDisk() = default;

  // Who hears of outcomes, on any thread. Once, before the first task.
  virtual void SetSink(std::function<void(CheckpointOutcome)> sink) = 0;
  // Returns at once.
  virtual void Start(CheckpointTask task) = 0;

  // What is committed beneath `folder`, a job's, in no order; on the calling thread, for the start
  // of a coordinator. Folders that hold no whole checkpoint are passed over, and logged.
  virtual std::vector<FoundCheckpoint> FindCommitted(const std::string& folder) const = 0;
};

}  // namespace lasp::server
