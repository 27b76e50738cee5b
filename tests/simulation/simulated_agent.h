// One host: the real agent over simulated processes and a simulated network, which dies and comes
// back as its faults say.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "tests/simulation/checker.h"
#include "tests/simulation/context.h"
#include "tests/simulation/coordinator.h"
#include "tests/simulation/rank_field.h"
#include "tests/simulation/stream.h"
#include "worker/agent/agent.h"

namespace lasp::simulation {

class SimulatedAgent {
 public:
  // GPU slots come before CPU slots.
  SimulatedAgent(Context* context, Checker* checker, Coordinator* coordinator, RankField* field,
                 std::string worker_id, int gpu_slots, int cpu_slots);
  ~SimulatedAgent();
  SimulatedAgent(const SimulatedAgent&) = delete;
  SimulatedAgent& operator=(const SimulatedAgent&) = delete;

  const std::string& worker_id() const { return worker_id_; }

  int gpu_slots() const { return gpu_slots_; }

  int cpu_slots() const { return cpu_slots_; }

  // A process begins, and first ends what an earlier one has left.
  void StartAfter(absl::Duration delay);

  // --- faults ---
  // Its ranks die with it, or end when they notice that it is gone.
  void Crash(bool ranks_die);
  // The host is gone at once, and nobody closes its connections.
  void LoseHost();
  // As on SIGSTOP.
  void Stall(absl::Duration duration);
  // As on SIGTERM: it drains, ends, and is started again.
  void Terminate();
  void BreakStream();
  void Partition(absl::Duration duration);
  // The network is whole, and it runs again.
  void Heal();

  // It does not come back any more.
  void Retire() { retired_ = true; }

  bool up() const { return process_ != nullptr; }

  bool retired() const { return retired_; }

  // Whether it serves: welcomed, and not about to end.
  bool serves() const;
  bool AllReported() const;

 private:
  struct Process;

  void Start();
  void End(bool told);
  // Runs `work` for the present process: soon, or after its stall.
  void Plan(absl::Duration delay, std::function<void()> work);
  // For the process of `incarnation`: not at all where it has ended.
  void PlanFor(int64_t incarnation, absl::Duration delay, std::function<void()> work);
  void Hold(std::function<void()> work);
  void PlanRelease();
  void Dial();
  void EndStream();
  void DialLater(bool welcomed);
  void PumpSoon();
  void PlanPump();
  void Pump();
  void AwaitDrained();

  Context* const context_;
  Checker* const checker_;
  Coordinator* const coordinator_;
  RankField* const field_;
  const std::string worker_id_;
  const int gpu_slots_;
  const int cpu_slots_;
  Random random_;
  int64_t incarnation_ = 0;
  bool retired_ = false;
  // Whether a start is planned.
  bool starting_ = false;
  absl::Duration stalled_until_;
  // Of this incarnation, while it is stalled.
  std::deque<std::function<void()>> held_;
  absl::Duration partitioned_until_;
  std::unique_ptr<Process> process_;
};

}  // namespace lasp::simulation
