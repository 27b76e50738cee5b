#include "tests/simulation/simulated_checkpoint_disk.h"

#include <algorithm>
#include <utility>

namespace lasp::simulation {
namespace {

using Kind = server::CheckpointTask::Kind;

}  // namespace

SimulatedCheckpointDisk::SimulatedCheckpointDisk(Context* context, CheckpointFiles* files,
                                                 Checker* checker, std::function<void()> told)
    : context_(context),
      files_(files),
      checker_(checker),
      told_(std::move(told)),
      random_(context->MakeRandom()) {}

void SimulatedCheckpointDisk::Start(server::CheckpointTask task) {
  absl::Duration at = context_->now() + random_.Between(absl::Milliseconds(1), absl::Seconds(2));
  if (task.kind != Kind::kVerify) {
    at = std::max(at, free_at_);
    free_at_ = at;
  }
  const absl::Duration telling = random_.Between(absl::ZeroDuration(), absl::Milliseconds(500));
  context_->timeline().After(at - context_->now(), [this, alive = alive_, task, telling] {
    if (!*alive) {
      return;
    }
    server::CheckpointOutcome outcome = Do(task);
    context_->timeline().After(telling, [this, alive, outcome]() mutable {
      if (*alive) {
        sink_(std::move(outcome));
        told_();
      }
    });
  });
}

server::CheckpointOutcome SimulatedCheckpointDisk::Do(const server::CheckpointTask& task) {
  server::CheckpointOutcome outcome{.kind = task.kind,
                                    .uid = task.uid,
                                    .step = task.step,
                                    .generation = task.generation,
                                    .status = {},
                                    .manifest_digest = {}};
  switch (task.kind) {
    case Kind::kCommit: {
      absl::StatusOr<std::string> digest = files_->Commit(task.folder, task.manifest);
      outcome.status = digest.status();
      if (digest.ok()) {
        outcome.manifest_digest = *std::move(digest);
      }
      break;
    }
    case Kind::kVerify:
      outcome.status = files_->Verify(task.folder, task.manifest_digest);
      break;
    case Kind::kRemove:
    case Kind::kRemoveJob:
    case Kind::kRemoveUnfinished:
      if (files_->broken()) {
        outcome.status = absl::UnavailableError("the disk does not answer");
      } else {
        Remove(task);
      }
      break;
  }
  context_->Say("checkpoint disk: task ", static_cast<int>(task.kind), " of ",
                task.step == 0 ? "a job" : CheckpointFiles::NameOf(task.folder), ": ",
                absl::StatusCodeToString(outcome.status.code()));
  return outcome;
}

void SimulatedCheckpointDisk::Remove(const server::CheckpointTask& task) {
  if (task.kind == Kind::kRemove) {
    checker_->OnRemoval(task.uid, task.step, task.generation);
    files_->Remove(task.folder);
  } else if (task.kind == Kind::kRemoveJob) {
    checker_->OnRemoval(task.uid);
    files_->RemoveAll(task.folder);
  } else {
    files_->RemoveUnfinished(task.folder, task.generation, task.known);
  }
}

}  // namespace lasp::simulation
