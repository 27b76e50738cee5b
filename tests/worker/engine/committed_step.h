// From what the ranks of a run wrote to a checkpoint that another can go on from.
#pragma once

#include <cstdint>
#include <vector>

#include "lasp/v1/worker_service.pb.h"
#include "tests/worker/engine/local_training.h"

namespace lasp::worker {

// Commits their shards of `step` as the coordinator would. Fails the test where a rank has none, or
// they make no whole.
lasp::v1::CheckpointReference CommitStep(const LocalTrainingOptions& options,
                                         const std::vector<LocalTrainingRecord>& records,
                                         int64_t step);

}  // namespace lasp::worker
