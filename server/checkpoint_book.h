// The checkpoints of one job, in the controller's hands.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "lasp/v1/checkpoint.pb.h"
#include "lasp/v1/training_job.pb.h"
#include "lasp/v1/worker_service.pb.h"
#include "server/checkpoint_task.h"

namespace lasp::server {

// One checkpoint, from its first shard to the removal of its folder.
struct CheckpointRecord {
  lasp::v1::Checkpoint checkpoint;
  // While it is being written: what each rank has said.
  std::map<int, lasp::v1::ShardWritten> shards;
  // A task on the disk has been given and not been heard of.
  bool busy = false;
  // When it was to be committed for the first time, of the monotonic clock.
  absl::Duration first_commit = absl::InfiniteDuration();
  // A task that failed is tried again then, of the monotonic clock.
  absl::Duration retry_at = -absl::InfiniteDuration();

  lasp::v1::Checkpoint::State state() const { return checkpoint.state(); }

  // Every rank's shard is there, and the manifest is not yet: it will be a checkpoint.
  bool Settling() const {
    return state() == lasp::v1::Checkpoint::STATE_WRITING &&
           static_cast<int>(shards.size()) == checkpoint.shard_count();
  }

  // While it is being written: who has not said anything of its shard.
  std::vector<int> MissingRanks() const;

  // What its state asks to be done on the disk.
  std::optional<CheckpointTask::Kind> NextTask() const;
};

// Not thread-safe.
class CheckpointBook {
 public:
  using Key = std::pair<int64_t, int64_t>;  // step, generation

  std::map<Key, CheckpointRecord>& records() { return records_; }

  const std::map<Key, CheckpointRecord>& records() const { return records_; }

  // Null where there is none.
  CheckpointRecord* Find(int64_t step, int64_t generation);
  const CheckpointRecord* Find(int64_t step, int64_t generation) const;

  // Of those of one step, the newest generation's, which has the name. Null where there is none.
  CheckpointRecord* Newest(int64_t step);

  // What a generation would start from: the committed one of the highest step. Null for none.
  const CheckpointRecord* NewestCommitted() const;

  // Whether a checkpoint will soon be committed that is not yet: a start should wait for it.
  bool Settling() const;

  // Those that may be removed: committed ones that the retention does not keep, and damaged ones,
  // that `keep_last` newer verified ones follow.
  std::vector<Key> Collectable(const lasp::v1::CheckpointRetention& retention) const;

  // As readers see them, newest first.
  std::vector<lasp::v1::Checkpoint> View() const;

 private:
  std::map<Key, CheckpointRecord> records_;
};

// keep_last with its default.
int KeepLast(const lasp::v1::CheckpointRetention& retention);

}  // namespace lasp::server
