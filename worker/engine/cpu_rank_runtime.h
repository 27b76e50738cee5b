// The CPU's runtime by its own name, for programs that put something around it.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "worker/engine/rank_runtime.h"

namespace lasp::worker {

// As CreateRankRuntime.
absl::StatusOr<std::unique_ptr<RankRuntime>> CreateCpuRankRuntime(
    const lasp::internal::v1::Setup& setup, const ProcessGrid& grid);

}  // namespace lasp::worker
