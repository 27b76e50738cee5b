#include "worker/parallel/tensor_parallel.h"

#include <utility>

#include "proto/rpc/status_macros.h"

namespace lasp::worker {

void TensorParallel::TakeScratch(const AttentionShape& widest, Arena& arena) {
  sequences_ = widest.batch;
  const int64_t rows = widest.batch * widest.tokens;
  const int64_t hidden = widest.heads * widest.head_size * sp_.size();
  const auto take = [&](int64_t count) {
    return arena.Take(MemoryUse::kWorkspace, backend_.activation_type(), count, hidden);
  };
  for (Tensor& whole : wholes_) {
    whole = take(rows);
  }
  row_sums_ = arena.Take(MemoryUse::kWorkspace, backend_.accumulation_type(), rows, 1);
  if (Pads(last_)) {
    padded_ = take(widest.tokens);
  }
}

Operation TensorParallel::BeginGather(Tensor slice, Tensor whole) {
  const SequenceSlices slices = SlicesOf(slice.rows);
  if (Pads(slices)) {
    return GatherPadded(slices, slice, whole);
  }
  const int64_t tokens = slice.rows / sequences_;
  Operation last;
  for (int64_t sequence = 0; sequence < sequences_; ++sequence) {
    last = sp_.AllGather(slice.Rows(sequence * tokens, tokens),
                         whole.Rows(sequence * slices.total, slices.total));
  }
  // They run in order and fail for good: the last one speaks for all.
  return last;
}

Operation TensorParallel::GatherPadded(const SequenceSlices& slices, Tensor slice, Tensor whole) {
  const int64_t tokens = slices.Of(sp_.rank());
  const Tensor padded = padded_.Rows(0, slices.each * sp_.size());
  const Tensor own = OwnOf(slices, padded);
  Operation last;
  for (int64_t sequence = 0; sequence < sequences_; ++sequence) {
    if (tokens > 0) {
      backend_.Copy(slice.Rows(sequence * tokens, tokens), own.Rows(0, tokens));
    }
    last = sp_.AllGather(own, padded);
    if (!WaitFor(last).ok()) {
      break;
    }
    // The padding lies behind the last token, since only the end of a sequence cuts slices short.
    backend_.Copy(padded.Rows(0, slices.total), whole.Rows(sequence * slices.total, slices.total));
  }
  return last;
}

absl::Status TensorParallel::Gather(Tensor slice, Tensor whole) {
  return WaitFor(BeginGather(slice, whole));
}

absl::Status TensorParallel::ScatterSum(Tensor whole, Tensor slice) {
  const SequenceSlices slices = SlicesOf(slice.rows);
  if (Pads(slices)) {
    return ScatterSumPadded(slices, whole, slice);
  }
  const int64_t tokens = slice.rows / sequences_;
  Operation last;
  for (int64_t sequence = 0; sequence < sequences_; ++sequence) {
    last = sp_.ReduceScatterSum(whole.Rows(sequence * slices.total, slices.total),
                                slice.Rows(sequence * tokens, tokens));
  }
  return WaitFor(std::move(last));
}

absl::Status TensorParallel::ScatterSumPadded(const SequenceSlices& slices, Tensor whole,
                                              Tensor slice) {
  const int64_t tokens = slices.Of(sp_.rank());
  const Tensor padded = padded_.Rows(0, slices.each * sp_.size());
  const Tensor own = OwnOf(slices, padded);
  for (int64_t sequence = 0; sequence < sequences_; ++sequence) {
    backend_.Copy(whole.Rows(sequence * slices.total, slices.total), padded.Rows(0, slices.total));
    backend_.Fill(0, padded.Rows(slices.total, padded.rows - slices.total));
    LASP_RETURN_IF_ERROR(WaitFor(sp_.ReduceScatterSum(padded, own)));
    if (tokens > 0) {
      backend_.Copy(own.Rows(0, tokens), slice.Rows(sequence * tokens, tokens));
    }
  }
  return absl::OkStatus();
}

absl::Status TensorParallel::Sum(Tensor values) { return WaitFor(sp_.AllReduceSum(values)); }

absl::Status TensorParallel::WaitFor(Operation operation) {
  const Phase before = backend_.EnterPhase(Phase::kSpWait);
  absl::Status status = operation.Wait();
  backend_.EnterPhase(before);
  return status;
}

}  // namespace lasp::worker
