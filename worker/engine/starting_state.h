// What a run begins from: random or given weights, a checkpoint, or what the ranks of the
// generation before left in memory.
#pragma once

#include "absl/status/statusor.h"
#include "lasp/v1/checkpoint.pb.h"
#include "worker/engine/trainer_options.h"
#include "worker/engine/training_parts.h"

namespace lasp::worker {

// Makes parameters and moments, spreads the weights, and has `parts` count on. Returns the state
// after the last step made, all zeros for the beginning. Errors of Restore, RebuildState and
// LoadInitialWeights.
absl::StatusOr<lasp::v1::TrainingState> MakeStartingState(const TrainerOptions& options,
                                                          TrainingParts& parts);

}  // namespace lasp::worker
