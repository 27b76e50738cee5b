#include "worker/engine/sequence_sweep.h"

#include "proto/rpc/status_macros.h"

namespace lasp::worker {

absl::StatusOr<TokenBatch> SequenceSweep::Next(const Fetch& fetch, int64_t chunk) {
  backend_.EnterPhase(Phase::kData);
  LASP_ASSIGN_OR_RETURN(const TokenBatch batch, fetch(chunk));
  backend_.EnterPhase(Phase::kForward);
  return batch;
}

absl::Status SequenceSweep::Train(const Fetch& fetch, double gradient_scale, Tensor loss_sum,
                                  bool adds, bool last_micro_batch) {
  using States = TransNormer::States;
  const int64_t last = chunks_ - 1;
  if (carried_ != nullptr) {
    carried_->Begin();
  }
  for (int64_t chunk = 0; chunk < last; ++chunk) {
    LASP_ASSIGN_OR_RETURN(const TokenBatch batch, Next(fetch, chunk));
    LASP_RETURN_IF_ERROR(model_.ForwardStates(batch));
    LASP_RETURN_IF_ERROR(carried_->Advance(/*keeps=*/true));
  }
  for (int64_t chunk = last; chunk >= 0; --chunk) {
    if (chunk < last) {
      LASP_RETURN_IF_ERROR(carried_->Retreat());
    }
    LASP_ASSIGN_OR_RETURN(const TokenBatch batch, Next(fetch, chunk));
    // The last one's first forward is its only one.
    LASP_RETURN_IF_ERROR(
        model_.ForwardForTraining(batch, chunk == last ? States::kExchanged : States::kKept,
                                  gradient_scale, loss_sum, adds || chunk < last));
    if (chunk == last && carried_ != nullptr) {
      carried_->TurnAround();
    }
    backend_.EnterPhase(Phase::kBackward);
    LASP_RETURN_IF_ERROR(model_.Backward(batch, last_micro_batch && chunk == 0));
  }
  return absl::OkStatus();
}

absl::Status SequenceSweep::Evaluate(const Fetch& fetch, Tensor loss_sum) {
  if (carried_ != nullptr) {
    carried_->Begin();
  }
  for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
    LASP_ASSIGN_OR_RETURN(const TokenBatch batch, Next(fetch, chunk));
    LASP_RETURN_IF_ERROR(model_.ForwardForEvaluation(batch, loss_sum));
    if (chunk + 1 < chunks_) {
      LASP_RETURN_IF_ERROR(carried_->Advance(/*keeps=*/false));
    }
  }
  return absl::OkStatus();
}

}  // namespace lasp::worker
