// Which part of a run's state a rank has, saves and leaves behind, in the order of the whole model.
#pragma once

#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/checkpoint/tensor_share.h"
#include "worker/engine/trainer_options.h"
#include "worker/engine/training_parts.h"

namespace lasp::worker {

// What this rank has; none: all.
std::optional<std::vector<TensorShare>> SharesOwned(const TrainingParts& parts);

// What it saves, as CheckpointWriter wants it: each element is one rank's, but for what it saves of
// the staging.
std::optional<std::vector<TensorShare>> SharesSaved(const TrainerOptions& options,
                                                    const TrainingParts& parts);

// What it leaves for the next generation when others have gone. FAILED_PRECONDITION where there is
// nothing to leave that others had not.
absl::StatusOr<std::vector<TensorShare>> SharesLeft(const TrainerOptions& options,
                                                    const TrainingParts& parts);

}  // namespace lasp::worker
