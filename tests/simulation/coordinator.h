// The coordinator's process: the real controller, stepped, on a simulated store. Crashes and starts
// again.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/core_options.h"
#include "server/job_controller.h"
#include "tests/simulation/checker.h"
#include "tests/simulation/checkpoint_files.h"
#include "tests/simulation/context.h"
#include "tests/simulation/simulated_checkpoint_disk.h"
#include "tests/simulation/simulated_store.h"

namespace lasp::simulation {

class Coordinator {
 public:
  // `on_crash` is called with each end of the process, `on_turn` after each turn of the controller.
  Coordinator(Context* context, Checker* checker, Disk* disk, CheckpointFiles* files);
  ~Coordinator();

  void OnCrash(std::function<void()> on_crash) { on_crash_ = std::move(on_crash); }

  // The same for the present process alone.
  void AtCrash(std::function<void()> run) { at_crash_.push_back(std::move(run)); }

  void OnTurn(std::function<void()> on_turn) { on_turn_ = std::move(on_turn); }

  void Start();
  // The process dies: what is not durable is lost, nothing is said to anybody.
  void Crash();
  // Nothing of it runs for so long, as on SIGSTOP.
  void Stall(absl::Duration duration);
  void JumpWallClock(absl::Duration by);

  bool up() const { return process_ != nullptr; }

  // Of the present process; 0 where there is none.
  int64_t incarnation() const { return up() ? incarnation_ : 0; }

  absl::Duration stalled_until() const { return stalled_until_; }

  // Null while it is down.
  server::JobController* controller();
  // What readers see.
  server::WorkerViewPtr FindWorker(const std::string& worker_id) const;
  server::JobViewPtr FindJob(const std::string& uid) const;
  bool healthy() const;

  // Leases that have run out, in all runs.
  int64_t expired_leases() const { return expired_leases_; }

  // Something has come in: the controller's thread wakes.
  void Wake();

 private:
  struct Process;

  void Turn(bool sweep);
  void PlanSweep();
  // Runs `work` unless the process has ended; later, where it is stalled.
  void Plan(absl::Duration delay, std::function<void()> work);

  Context* const context_;
  Checker* const checker_;
  Disk* const disk_;
  CheckpointFiles* const files_;
  Random random_;
  server::CoreOptions options_;
  std::function<void()> on_crash_ = [] {};
  std::vector<std::function<void()>> at_crash_;
  std::function<void()> on_turn_ = [] {};
  int64_t incarnation_ = 0;
  int64_t expired_leases_ = 0;
  absl::Duration wall_offset_;
  absl::Duration stalled_until_;
  bool woken_ = false;
  std::unique_ptr<Process> process_;
};

}  // namespace lasp::simulation
