// One forward and backward whose results are thrown away, on a device that gains by it.
#pragma once

#include "absl/status/status.h"
#include "worker/engine/trainer_options.h"
#include "worker/engine/training_parts.h"

namespace lasp::worker {

// All ranks of a group rehearse together, before the first step.
absl::Status Rehearse(const TrainerOptions& options, TrainingParts& parts);

}  // namespace lasp::worker
