#include "worker/parallel/tensor_parallel.h"

#include <utility>

namespace lasp::worker {

void TensorParallel::TakeScratch(const AttentionShape& widest, Arena& arena) {
  sequences_ = widest.batch;
  const int64_t rows = widest.batch * widest.tokens;
  const int64_t hidden = widest.heads * widest.head_size * sp_.size();
  for (Tensor& whole : wholes_) {
    whole = arena.Take(MemoryUse::kWorkspace, backend_.activation_type(), rows, hidden);
  }
  row_sums_ = arena.Take(MemoryUse::kWorkspace, backend_.accumulation_type(), rows, 1);
}

Operation TensorParallel::BeginGather(Tensor slice, Tensor whole) {
  const int64_t tokens = slice.rows / sequences_;
  Operation last;
  for (int64_t sequence = 0; sequence < sequences_; ++sequence) {
    last = sp_.AllGather(slice.Rows(sequence * tokens, tokens),
                         whole.Rows(sequence * tokens * sp_.size(), tokens * sp_.size()));
  }
  // They run in order and fail for good: the last one speaks for all.
  return last;
}

absl::Status TensorParallel::Gather(Tensor slice, Tensor whole) {
  return WaitFor(BeginGather(slice, whole));
}

absl::Status TensorParallel::ScatterSum(Tensor whole, Tensor slice) {
  const int64_t tokens = slice.rows / sequences_;
  Operation last;
  for (int64_t sequence = 0; sequence < sequences_; ++sequence) {
    last = sp_.ReduceScatterSum(whole.Rows(sequence * tokens * sp_.size(), tokens * sp_.size()),
                                slice.Rows(sequence * tokens, tokens));
  }
  return WaitFor(std::move(last));
}

absl::Status TensorParallel::Sum(Tensor values) { return WaitFor(sp_.AllReduceSum(values)); }

absl::Status TensorParallel::WaitFor(Operation operation) {
  const Phase before = backend_.EnterPhase(Phase::kSpWait);
  absl::Status status = operation.Wait();
  backend_.EnterPhase(before);
  return status;
}

}  // namespace lasp::worker
