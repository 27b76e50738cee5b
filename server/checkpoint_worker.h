// Does the controller's tasks with checkpoints on threads of its own.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "server/checkpoint_folder.h"
#include "server/checkpoint_task.h"
#include "server/task_pool.h"

namespace lasp::server {

// Does one task, on the calling thread; `stop` ends a long one early.
CheckpointOutcome DoCheckpointTask(const CheckpointFolder& folder, const CheckpointTask& task,
                                   const std::function<bool()>& stop);

// Thread-safe.
class CheckpointWorker final : public CheckpointDisk {
 public:
  explicit CheckpointWorker(std::string root) : folder_(std::move(root)) {}

  // Waits for what is under way. What it has not come to is found again by the next start, which
  // reads it from the store.
  ~CheckpointWorker() override { ending_ = true; }

  CheckpointWorker(const CheckpointWorker&) = delete;
  CheckpointWorker& operator=(const CheckpointWorker&) = delete;

  const CheckpointFolder& folder() const { return folder_; }

  void SetSink(std::function<void(CheckpointOutcome)> sink) override { sink_ = std::move(sink); }

  void Start(CheckpointTask task) override;

  std::vector<FoundCheckpoint> FindCommitted(const std::string& folder) const override {
    return folder_.FindCommitted(folder);
  }

 private:
  const CheckpointFolder folder_;
  std::function<void(CheckpointOutcome)> sink_;
  std::atomic<bool> ending_{false};
  // Reading a checkpoint back may take minutes, and a commit must not wait for it.
  TaskPool reading_{{.threads = 1}};
  TaskPool writing_{{.threads = 1}};
};

}  // namespace lasp::server
