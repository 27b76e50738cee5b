#include "server/checkpoint_worker.h"

#include <utility>

#include "proto/rpc/log.h"

namespace lasp::server {

CheckpointOutcome DoCheckpointTask(const CheckpointFolder& folder, const CheckpointTask& task,
                                   const std::function<bool()>& stop) {
  CheckpointOutcome outcome{.kind = task.kind,
                            .uid = task.uid,
                            .step = task.step,
                            .generation = task.generation,
                            .status = {},
                            .manifest_digest = {}};
  switch (task.kind) {
    case CheckpointTask::Kind::kCommit: {
      absl::StatusOr<std::string> digest = folder.Commit(task.folder, task.manifest);
      outcome.status = digest.status();
      if (digest.ok()) {
        outcome.manifest_digest = *std::move(digest);
      }
      break;
    }
    case CheckpointTask::Kind::kVerify:
      outcome.status = folder.Verify(task.folder, task.manifest_digest, stop);
      break;
    case CheckpointTask::Kind::kRemove:
    case CheckpointTask::Kind::kRemoveJob:
      outcome.status = folder.Remove(task.folder);
      break;
    case CheckpointTask::Kind::kRemoveUnfinished:
      outcome.status = folder.RemoveUnfinished(task.folder, task.generation, task.known);
      break;
  }
  if (!outcome.status.ok() && !absl::IsCancelled(outcome.status)) {
    LASP_LOG(kWarning, "a checkpoint on the disk is not as it should be",
             {{"folder", task.folder}, {"status", outcome.status.ToString()}});
  }
  return outcome;
}

void CheckpointWorker::Start(CheckpointTask task) {
  TaskPool& pool = task.kind == CheckpointTask::Kind::kVerify ? reading_ : writing_;
  // At most a few a job wait: the controller gives the next one of a checkpoint when it has heard
  // of the last.
  pool.RunAlways([this, task = std::move(task)] {
    if (ending_) {
      return;
    }
    sink_(DoCheckpointTask(folder_, task, [this] { return ending_.load(); }));
  });
}

}  // namespace lasp::server
