#include "worker/engine/rehearsal.h"

#include <algorithm>
#include <cstdint>

#include "proto/rpc/status_macros.h"

namespace lasp::worker {

absl::Status Rehearse(const TrainerOptions& options, TrainingParts& parts) {
  Backend& backend = *options.backend;
  if (!backend.wants_rehearsal()) {
    return absl::OkStatus();
  }
  // Tokens and labels are zeros. What a step leaves, the next one writes anew or fills with zeros.
  backend.Rehearse(true);
  const MacroChunks& chunks = parts.chunks();
  const int64_t micro_batches = std::min<int64_t>(2, options.train_data->micro_batches_per_step());
  const int64_t passes = std::max(micro_batches, std::min<int64_t>(2, chunks.pass_count()));
  if (CarriedStates* const carried = parts.carried(); carried != nullptr) {
    carried->Begin();
    carried->TurnAround();
  }
  // Products of every size that some rank may come to, on all ranks.
  for (const int64_t tokens : {chunks.slice_tokens(), chunks.last_slices().CutShort()}) {
    const TokenBatch batch = parts.upload().Place(options.spec.micro_batch_size() * tokens);
    for (int64_t pass = 0; pass < passes && tokens > 0; ++pass) {
      LASP_RETURN_IF_ERROR(parts.model().ForwardForTraining(batch, TransNormer::States::kExchanged,
                                                            1, parts.control().loss_sum(),
                                                            /*adds=*/pass > 0));
      LASP_RETURN_IF_ERROR(parts.model().Backward(batch, /*last=*/false));
    }
  }
  LASP_RETURN_IF_ERROR(backend.Synchronize());
  backend.Rehearse(false);
  return absl::OkStatus();
}

}  // namespace lasp::worker
