// The coordinator's tasks with checkpoints: done a while after they are given, and told of a while
// after they are done, or never, because the process dies first.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "server/checkpoint_task.h"
#include "tests/simulation/checker.h"
#include "tests/simulation/checkpoint_files.h"
#include "tests/simulation/context.h"

namespace lasp::simulation {

class SimulatedCheckpointDisk final : public server::CheckpointDisk {
 public:
  // `told` is called after an outcome was told.
  SimulatedCheckpointDisk(Context* context, CheckpointFiles* files, Checker* checker,
                          std::function<void()> told);

  ~SimulatedCheckpointDisk() override { *alive_ = false; }

  void SetSink(std::function<void(server::CheckpointOutcome)> sink) override {
    sink_ = std::move(sink);
  }

  void Start(server::CheckpointTask task) override;

  // Of a store that comes from a backup alone, and none does here.
  std::vector<server::FoundCheckpoint> FindCommitted(const std::string& /*folder*/) const override {
    return {};
  }

 private:
  server::CheckpointOutcome Do(const server::CheckpointTask& task);
  void Remove(const server::CheckpointTask& task);

  Context* const context_;
  CheckpointFiles* const files_;
  Checker* const checker_;
  const std::function<void()> told_;
  std::function<void(server::CheckpointOutcome)> sink_;
  Random random_;
  // When the last writing is done: they are done in order.
  absl::Duration free_at_;
  // Gone with this object: what was planned for it then does nothing.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace lasp::simulation
