// All ranks of a small world in one process, a thread and a GPU each (rank r on GPU r), connected
// over NCCL.
#pragma once

#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "tests/worker/parallel/local_ranks.h"

namespace lasp::worker {

struct GpuRanksOptions {
  int sp_size = 1;
  int dp_size = 1;
  absl::Duration timeout = absl::Seconds(60);
};

// Runs `body` for each rank and returns each rank's status in rank order; LocalRank::mesh is null.
std::vector<absl::Status> RunGpuRanks(const GpuRanksOptions& options,
                                      const std::function<absl::Status(LocalRank&)>& body);

}  // namespace lasp::worker
