// How well the model does on data that it does not train on.
#pragma once

#include <optional>

#include "absl/status/statusor.h"
#include "worker/engine/trainer_options.h"
#include "worker/engine/training_parts.h"

namespace lasp::worker {

struct EvaluationResult {
  // None when a drain ended the evaluation.
  std::optional<double> loss;
  bool drain = false;
};

// The mean loss over one pass of options.eval_data, which must be given: the same bits on all
// ranks, which all call it between two steps. Errors of the data and of the communicators.
absl::StatusOr<EvaluationResult> HeldOutLoss(const TrainerOptions& options, TrainingParts& parts);

}  // namespace lasp::worker
