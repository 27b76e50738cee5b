// Tensor parallelism with sequence parallelism (Korthikanti et al., arXiv 2205.05198): the ranks of
// an SP group share out heads and the MLP's columns, and what lies between is by slices of the
// sequence. A layer's products are over the tokens of all ranks: what they read is gathered, and
// what they write is a part of a sum, of which each rank gets its own tokens.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "worker/device/arena.h"
#include "worker/device/backend.h"
#include "worker/parallel/communicator.h"

namespace lasp::worker {

// A slice is [sequences * tokens of a rank, D], the whole [sequences * tokens of all, D], each
// sequence's tokens in their order. Not thread-safe.
//
// Gather and ScatterSum send (P - 1) times a slice each, of P ranks: B N D (P - 1) / P elements.
class TensorParallel {
 public:
  // Both must outlive this.
  TensorParallel(Backend* backend, Communicator* sp) : backend_(*backend), sp_(*sp) {}

  int size() const { return sp_.size(); }

  // Two wholes and a number a token, for layers of `widest`: the tokens of all ranks, this rank's
  // heads.
  void TakeScratch(const AttentionShape& widest, Arena& arena);

  // Room for the whole of a slice of so many rows: place 0 or 1.
  Tensor Whole(int place, int64_t slice_rows) const {
    return wholes_[place].Rows(0, slice_rows * sp_.size());
  }

  // Room for a number a row of a whole, of the accumulation type.
  Tensor RowSums(int64_t rows) const { return row_sums_.Rows(0, rows); }

  // Issues it; `slice` is unchanged, and `whole` not read, until it has been waited for.
  Operation BeginGather(Tensor slice, Tensor whole);
  absl::Status Gather(Tensor slice, Tensor whole);
  // Each rank gets its slice of the sum of all ranks' wholes, which become scratch.
  absl::Status ScatterSum(Tensor whole, Tensor slice);
  // Over the ranks, in place.
  absl::Status Sum(Tensor values);
  absl::Status WaitFor(Operation operation);

 private:
  Backend& backend_;
  Communicator& sp_;
  int64_t sequences_ = 1;
  Tensor wholes_[2];
  Tensor row_sums_;
};

}  // namespace lasp::worker
