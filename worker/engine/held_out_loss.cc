#include "worker/engine/held_out_loss.h"

#include <algorithm>
#include <cstdint>

#include "proto/rpc/status_macros.h"

namespace lasp::worker {

absl::StatusOr<EvaluationResult> HeldOutLoss(const TrainerOptions& options, TrainingParts& parts) {
  const BatchSource& data = *options.eval_data;
  StepControl& control = parts.control();
  double loss_sum = 0;
  double label_count = 0;
  for (int64_t batch_index = 1; batch_index <= data.global_batch_count(); ++batch_index) {
    control.Begin();
    double own_labels = 0;
    for (int64_t micro = 0; micro < data.micro_batches_per_step(); ++micro) {
      const auto fetch = [&](int64_t chunk) -> absl::StatusOr<TokenBatch> {
        LASP_ASSIGN_OR_RETURN(const Batch batch,
                              data.Read(batch_index, micro, parts.chunks(), chunk));
        own_labels += static_cast<double>(batch.label_count);
        return parts.upload().Upload(batch, chunk);
      };
      LASP_RETURN_IF_ERROR(parts.sweep().Evaluate(fetch, control.loss_sum()));
    }
    LASP_ASSIGN_OR_RETURN(
        const StepControl::Evaluated evaluated,
        control.SumEvaluated(own_labels, options.drain->requested(), *options.world));
    // The device has just been waited for: what its clock has noted so far is given up, and the
    // next step's phases are its own.
    options.backend->TakePhaseSeconds();
    // Collective operations tell as much where there are others.
    if (options.progress != nullptr) {
      options.progress->Advance();
    }
    loss_sum += evaluated.loss_sum;
    label_count += evaluated.label_count;
    if (evaluated.drain) {
      return EvaluationResult{.loss = std::nullopt, .drain = true};
    }
  }
  return EvaluationResult{.loss = loss_sum / std::max(label_count, 1.0), .drain = false};
}

}  // namespace lasp::worker
