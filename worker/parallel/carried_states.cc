#include "worker/parallel/carried_states.h"

#include "proto/rpc/status_macros.h"

namespace lasp::worker {
namespace {

int64_t RowsOf(const std::vector<AttentionShape>& layers) {
  int64_t rows = 0;
  for (const AttentionShape& layer : layers) {
    rows += layer.state_matrix_rows();
  }
  return rows;
}

}  // namespace

CarriedStates::CarriedStates(const Parts& parts, const std::vector<AttentionShape>& layers,
                             Arena& arena)
    : parts_(parts) {
  rows_.reserve(layers.size() + 1);
  rows_.push_back(0);
  for (const AttentionShape& layer : layers) {
    rows_.push_back(rows_.back() + layer.state_matrix_rows());
  }
  const auto take = [&] {
    return arena.Take(MemoryUse::kStates, parts_.backend->accumulation_type(), rows_.back(),
                      layers.front().head_size);
  };
  states_in_[0] = take();
  states_in_[1] = take();
  carried_ = take();
}

int64_t CarriedStates::SlotBytes(const Backend& backend,
                                 const std::vector<AttentionShape>& layers) {
  return RowsOf(layers) * layers.front().head_size * SizeOf(backend.accumulation_type());
}

Tensor CarriedStates::LayerOf(int64_t layer, Tensor all) const {
  const auto at = static_cast<size_t>(layer);
  return all.Rows(rows_[at], rows_[at + 1] - rows_[at]);
}

void CarriedStates::PutInto(int64_t layer, AttentionMemory* memory) const {
  memory->state_in = LayerOf(layer, StatesIn(chunk_));
  memory->state_in_place = memory->state_in;
  const Tensor carried = LayerOf(layer, carried_);
  memory->state_before = parts_.carrying == StateCarrying::kEverywhere ? carried : Tensor{};
  memory->state_out = forms_state() && chunk_ + 1 < parts_.chunks ? carried : Tensor{};
  memory->state_gradient_in = carried;
  memory->state_gradient_out = forms_gradient() && chunk_ > 0 ? carried : Tensor{};
}

void CarriedStates::Begin() {
  chunk_ = 0;
  if (begins()) {
    parts_.backend->Fill(0, StatesIn(0));
  }
  if (parts_.carrying == StateCarrying::kEverywhere) {
    parts_.backend->Fill(0, carried_);
  }
}

absl::Status CarriedStates::WaitFor(Operation operation) {
  const Phase before = parts_.backend->EnterPhase(Phase::kSpWait);
  absl::Status status = operation.Wait();
  parts_.backend->EnterPhase(before);
  return status;
}

absl::Status CarriedStates::Advance(bool keeps) {
  if (keeps) {
    LASP_RETURN_IF_ERROR(parts_.stash->Store(chunk_, StatesIn(chunk_)));
    if (chunk_ > 0) {
      // The next macro-chunk's take the place of the one's before.
      LASP_RETURN_IF_ERROR(parts_.stash->Hold(chunk_ - 1));
    }
  }
  const Tensor next = StatesIn(chunk_ + 1);
  if (!wraps()) {
    if (begins()) {
      parts_.backend->Copy(carried_, next);
    }
  } else if (first()) {
    LASP_RETURN_IF_ERROR(WaitFor(parts_.wrap->ReceiveInto(next, parts_.wrap->size() - 1)));
  } else if (last()) {
    LASP_RETURN_IF_ERROR(WaitFor(parts_.wrap->SendInto(carried_, 0, next)));
  }
  ++chunk_;
  return absl::OkStatus();
}

void CarriedStates::TurnAround() {
  if (forms_state()) {
    parts_.backend->Fill(0, carried_);
  }
}

absl::Status CarriedStates::Retreat() {
  const int last_rank = parts_.wrap->size() - 1;
  if (wraps() && last()) {
    LASP_RETURN_IF_ERROR(WaitFor(parts_.wrap->ReceiveInto(carried_, 0)));
  } else if (wraps() && first()) {
    LASP_RETURN_IF_ERROR(WaitFor(parts_.wrap->SendInto(carried_, last_rank, carried_)));
  }
  --chunk_;
  if (chunk_ + 2 < parts_.chunks) {
    LASP_RETURN_IF_ERROR(parts_.stash->Hold(chunk_));
  }
  if (chunk_ > 0) {
    // Under the work of this macro-chunk, into the place of the one behind it.
    LASP_RETURN_IF_ERROR(parts_.stash->Load(chunk_ - 1, StatesIn(chunk_ - 1)));
  }
  return absl::OkStatus();
}

}  // namespace lasp::worker
