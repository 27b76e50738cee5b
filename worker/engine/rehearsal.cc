#include "worker/engine/rehearsal.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "proto/rpc/status_macros.h"

namespace lasp::worker {
namespace {

// Products of every size that some rank may come to, on all ranks.
std::vector<TokenBatch> BatchesOf(const TrainerOptions& options, TrainingParts& parts) {
  const MacroChunks& chunks = parts.chunks();
  const SequenceSlices last = chunks.last_slices();
  const auto batch_of = [&](int64_t tokens) {
    return parts.upload().Place(options.spec.micro_batch_size() * tokens);
  };
  std::vector<TokenBatch> batches = {batch_of(chunks.slice_tokens())};
  if (last.CutShort() > 0 && parts.config().tensor_ranks == 1) {
    batches.push_back(batch_of(last.CutShort()));
  } else if (last.total < last.each * parts.config().tensor_ranks) {
    // Its products are of the tokens of all ranks.
    batches.push_back(batch_of(last.Of(options.grid.sp_rank())));
    batches.back().slices = last;
  }
  return batches;
}

}  // namespace

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
  for (const TokenBatch& batch : BatchesOf(options, parts)) {
    for (int64_t pass = 0; pass < passes; ++pass) {
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
