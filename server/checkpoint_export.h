// One user's download of a checkpoint's parameters.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "lasp/v1/checkpoint_service.pb.h"
#include "proto/checkpoint/checkpoint_reader.h"
#include "proto/rpc/mutex.h"
#include "server/pull_stream.h"
#include "server/server_core.h"

namespace lasp::server {

// A place among the exports that may be under way at once; taken from a count that all share.
class ExportPlace {
 public:
  using Count = std::shared_ptr<std::atomic<int>>;

  // RESOURCE_EXHAUSTED (TOO_MANY_EXPORTS).
  static absl::StatusOr<std::unique_ptr<ExportPlace>> Take(Count count);

  ~ExportPlace() { count_->fetch_sub(1); }

  ExportPlace(const ExportPlace&) = delete;
  ExportPlace& operator=(const ExportPlace&) = delete;

 private:
  explicit ExportPlace(Count count) : count_(std::move(count)) {}

  const Count count_;
};

// Waits to be admitted, sends the head, then a part at a time, for as long as its reader takes
// them: it holds one block of one shard, and the manifest.
class CheckpointExport final : public PullStream<v1::ExportCheckpointResponse> {
 public:
  // `core` outlives it.
  CheckpointExport(OpenStreams* streams, TaskPool* pool, absl::Duration slow_reader_limit,
                   ServerCore* core, std::string uid, v1::ExportCheckpointRequest request,
                   std::unique_ptr<ExportPlace> place);

  // Once, from any thread: which checkpoint, or why none.
  void Admit(absl::StatusOr<v1::Checkpoint> checkpoint);

 private:
  std::optional<absl::Status> Pull(std::vector<v1::ExportCheckpointResponse>* batch) override;
  absl::Status Begin(v1::ExportCheckpointResponse* response);
  // The next elements; false at the end.
  absl::StatusOr<bool> ReadOn(v1::ExportCheckpointResponse* response);
  // What a failure to read means, now that it has happened.
  absl::Status Explain(const absl::Status& failure) const;

  ServerCore* const core_;
  const std::string uid_;
  const v1::ExportCheckpointRequest request_;
  const std::unique_ptr<ExportPlace> place_;
  Mutex admission_mutex_;
  std::optional<absl::StatusOr<v1::Checkpoint>> admission_ GUARDED_BY(admission_mutex_);
  // Of the pull alone.
  v1::Checkpoint checkpoint_;
  std::optional<CheckpointReader> reader_;
  std::vector<v1::CheckpointTensor> tensors_;
  size_t tensor_ = 0;
  int64_t element_ = 0;
};

}  // namespace lasp::server
