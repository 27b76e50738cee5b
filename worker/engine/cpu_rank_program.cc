// lasp-rank computes on the CPU.
#include "worker/engine/cpu_rank_runtime.h"

namespace lasp::worker {

absl::StatusOr<std::unique_ptr<RankRuntime>> CreateRankRuntime(
    const lasp::internal::v1::Setup& setup, const ProcessGrid& grid) {
  return CreateCpuRankRuntime(setup, grid);
}

const char* RankProgramName() { return "lasp-rank"; }

}  // namespace lasp::worker
