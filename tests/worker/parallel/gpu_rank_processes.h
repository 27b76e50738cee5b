// All ranks of a small world as processes of this host, a GPU each (rank r on GPU r), connected as
// real ones are: for what threads of one process cannot do, which block one another in the driver
// when many operations are under way.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/worker/parallel/gpu_ranks.h"

namespace lasp::worker {

// Runs `body` for each rank in a child of this process, which must not have used CUDA, and returns
// each rank's result in rank order.
std::vector<absl::StatusOr<std::string>> RunGpuRankProcesses(
    const GpuRanksOptions& options,
    const std::function<absl::StatusOr<std::string>(LocalRank&)>& body);

}  // namespace lasp::worker
