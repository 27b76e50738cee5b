// All ranks of a small world in one process, a thread and a GPU each (rank r on GPU r), connected
// over NCCL.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "tests/worker/parallel/local_ranks.h"

namespace lasp::worker {

struct GpuRanksOptions {
  int sp_size = 1;
  int dp_size = 1;
  absl::Duration timeout = absl::Seconds(60);
  // As NcclWorldOptions'. Threads of one process block one another in the driver where many
  // operations are under way: see gpu_rank_processes.h.
  bool peer_copies = false;
  bool groups_shard = false;
  // Whether there is a LocalRank::wrap.
  bool streams = false;
};

// One rank's whole life, on the calling thread. `id`: NCCL's.
absl::Status RunGpuRank(const GpuRanksOptions& options, int rank, const std::string& id,
                        const std::function<absl::Status(LocalRank&)>& body);

// Runs `body` for each rank and returns each rank's status in rank order; LocalRank::mesh is null.
std::vector<absl::Status> RunGpuRanks(const GpuRanksOptions& options,
                                      const std::function<absl::Status(LocalRank&)>& body);

}  // namespace lasp::worker
