// All ranks of a small SP group as processes of this host, connected as real ones are: for what is
// counted or timed a process, and for links that are slower than the loopback.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "tests/worker/parallel/local_ranks.h"

namespace lasp::worker {

struct RankProcessesOptions {
  int ranks = 1;
  absl::Duration timeout = absl::Seconds(60);
  // Called in this process once all ranks listen, with their addresses in rank order: the addresses
  // that `rank` is to be given. Null: those.
  std::function<absl::StatusOr<std::vector<std::string>>(int rank, const std::vector<std::string>&)>
      route = {};
};

// Runs `body` for each rank in a child of this process, which must have no other threads, with one
// BLAS and OpenMP thread, and returns each rank's result in rank order. The connections stay open
// until all have ended.
std::vector<absl::StatusOr<std::string>> RunRankProcesses(
    const RankProcessesOptions& options,
    const std::function<absl::StatusOr<std::string>(LocalRank&)>& body);

}  // namespace lasp::worker
