// Thousands of agents in one process, each on its own connection: they heartbeat, take assignments,
// report steps and logs, and end their ranks when all steps are done.
#pragma once

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "proto/rpc/mutex.h"

namespace lasp::bench {

struct AgentOptions {
  std::string worker_address;
  int count = 5'000;
  absl::Duration heartbeat_interval = absl::Seconds(2);
  // How long a simulated step takes, and how often steps are reported.
  absl::Duration step_time = absl::Seconds(2);
  absl::Duration report_interval = absl::Seconds(10);
  // Ranks of jobs with at least this many steps write a line of log with each heartbeat.
  int64_t talkative_steps = 1'000'000;
};

struct AgentTotals {
  int registered = 0;
  // Streams that ended although nobody asked for it.
  int lost = 0;
  int64_t assignments = 0;
  int64_t finished_ranks = 0;
  int64_t steps = 0;
  int64_t log_lines = 0;
};

class SimulatedAgent;

class SimulatedAgents {
 public:
  // Connects all of them; some hundred at a time.
  explicit SimulatedAgents(const AgentOptions& options);
  ~SimulatedAgents();
  SimulatedAgents(const SimulatedAgents&) = delete;
  SimulatedAgents& operator=(const SimulatedAgents&) = delete;

  // False if not all have registered in time.
  bool AwaitRegistered(absl::Duration timeout);

  AgentTotals Totals() const;

 private:
  void Drive();

  const AgentOptions options_;
  std::vector<std::shared_ptr<SimulatedAgent>> agents_;
  Mutex mutex_;
  CondVar stop_;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread driver_;
};

}  // namespace lasp::bench
