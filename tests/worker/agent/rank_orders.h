// Orders for ranks of jobs that are fake, as a coordinator gives them.
#pragma once

#include <string>
#include <vector>

#include "lasp/v1/worker_service.pb.h"
#include "worker/agent/rank_environment.h"
#include "worker/agent/supervisor.h"

namespace lasp::worker::testing {

inline lasp::v1::Fence FenceOf(const std::string& job, int64_t generation, int rank) {
  lasp::v1::Fence fence;
  fence.set_training_job("projects/default/trainingJobs/" + job);
  fence.set_uid("uid-" + job);
  fence.set_generation(generation);
  fence.set_rank(rank);
  return fence;
}

// A job of one rank, alone in its world.
inline lasp::v1::Assignment Alone(const std::string& job, int64_t generation, int slot,
                                  int64_t steps, const std::vector<std::string>& options = {}) {
  lasp::v1::Assignment assignment;
  *assignment.mutable_fence() = FenceOf(job, generation, 0);
  assignment.set_slot(slot);
  assignment.set_world_size(1);
  assignment.mutable_spec()->set_max_steps(steps);
  for (const std::string& option : options) {
    assignment.mutable_spec()->mutable_data()->add_train_paths(option);
  }
  return assignment;
}

inline lasp::v1::Stop StopOf(const lasp::v1::Fence& fence, lasp::v1::Stop::Mode mode,
                             int grace_ms = 30'000) {
  lasp::v1::Stop stop;
  *stop.mutable_fence() = fence;
  stop.set_mode(mode);
  stop.mutable_grace_period()->set_seconds(grace_ms / 1000);
  stop.mutable_grace_period()->set_nanos(grace_ms % 1000 * 1'000'000);
  stop.set_reason("TESTED");
  return stop;
}

inline SupervisorOptions Options() {
  return {.rank_binary = FAKE_RANK_BINARY,
          .slots = std::vector<lasp::v1::Slot>(4),
          .threads_a_rank = 3,
          .environment = OwnEnvironment()};
}

}  // namespace lasp::worker::testing
