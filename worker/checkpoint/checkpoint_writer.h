// Writes a rank's shares of checkpoints on a thread of its own, beside the training.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "lasp/internal/v1/rank_channel.pb.h"
#include "lasp/v1/worker_service.pb.h"
#include "proto/rpc/mutex.h"
#include "worker/checkpoint/row_staging.h"
#include "worker/checkpoint/tensor_share.h"
#include "worker/device/backend.h"
#include "worker/device/host_snapshot.h"
#include "worker/model/parameter_layout.h"

namespace lasp::worker {

// All but totals belongs to the training thread.
class CheckpointWriter {
 public:
  struct Options {
    std::string root;    // --checkpoint_root
    std::string folder;  // the job's, beneath it
    lasp::v1::Fence fence;
    int world_size = 1;
    // Both outlive the writer.
    const ParameterLayout* layout = nullptr;
    Backend* backend = nullptr;
    TrainingTensors tensors = {};  // fp32, moments also bf16; the files are fp32
    // What of them this rank writes; none: it has all, and writes its share of the world's.
    std::optional<std::vector<TensorShare>> saved = {};
    // Where given, also what this has, which is filled anew for each checkpoint. Outlives the
    // writer.
    RowStaging* staging = nullptr;
    // Hears of every shard once, written or not: on the writer's thread, or the training thread.
    std::function<void(const lasp::v1::ShardWritten&)> on_shard;
  };

  // Takes the memory for the copies. RESOURCE_EXHAUSTED names the size; INVALID_ARGUMENT for
  // tensors of other types and folders that are not plain paths.
  static absl::StatusOr<std::unique_ptr<CheckpointWriter>> Create(Options options);
  // Gives up what is being written.
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // Whether a shard is on its way to the disk.
  bool busy() const;
  // Copies the tensors as they are now and has them written; must not be busy. A failure goes to
  // on_shard. With staging all ranks of its group begin together.
  void Begin(const lasp::v1::TrainingState& state);

  // To be called before the tensors change.
  absl::Status HoldDevice() { return snapshot_->HoldDevice(); }

  // Says, in place of Begin, that this rank has no shard of a step.
  void Refuse(const lasp::v1::TrainingState& state, const absl::Status& why);
  // Whether it is no longer busy; false once it has not come on for `patience`: the disk, or the
  // device that the copies come from, does not answer.
  bool WaitUntilIdle(absl::Duration patience);

  // Host memory taken for the copies.
  int64_t staging_bytes() const;

  // Thread-safe. Without stalls.
  lasp::internal::v1::CheckpointTotals totals() const;

 private:
  CheckpointWriter(Options options, std::vector<TensorShare> shares,
                   std::vector<TensorShare> written, std::unique_ptr<HostSnapshot> snapshot);

  absl::Status TakeSnapshot();
  void NoteProgress();

  void Run();
  lasp::v1::ShardWritten Write(const lasp::v1::TrainingState& state);
  absl::StatusOr<lasp::v1::CheckpointShard> WriteShard(int64_t step);
  absl::Status WaitForSnapshot();
  // With fence and step.
  lasp::v1::ShardWritten Report(int64_t step) const;
  void Tell(const lasp::v1::ShardWritten& shard, absl::Duration began);

  const Options options_;
  // In options_.tensors; and all that is written, those of staging behind them.
  const std::vector<TensorShare> shares_;
  const std::vector<TensorShare> written_;
  const std::unique_ptr<HostSnapshot> snapshot_;
  std::atomic<bool> stopping_{false};
  // When what is being written last came on: nanoseconds of the monotonic clock.
  std::atomic<int64_t> came_on_{0};

  mutable Mutex mutex_;
  CondVar changed_;
  // What is to be written, until it has been.
  std::optional<lasp::v1::TrainingState> job_ GUARDED_BY(mutex_);
  absl::Duration began_ GUARDED_BY(mutex_);
  lasp::internal::v1::CheckpointTotals totals_ GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace lasp::worker
