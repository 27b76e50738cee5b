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
#include "worker/parallel/sequence_slices.h"

namespace lasp::worker {

// A slice is [sequences * tokens of a rank, D], the whole [sequences * tokens of all, D], each
// sequence's tokens in their order. Not thread-safe.
//
// Gather and ScatterSum send (P - 1) times a slice each, of P ranks: B N D (P - 1) / P elements.
// Where the end of a sequence cuts slices short, as much as if it did not.
class TensorParallel {
 public:
  // Both must outlive this.
  TensorParallel(Backend* backend, Communicator* sp) : backend_(*backend), sp_(*sp) {}

  int size() const { return sp_.size(); }

  // As SequenceParallel's.
  void ExpectAtEnd(const SequenceSlices& last) { last_ = last; }

  void UseSlices(const SequenceSlices& slices) { slices_ = slices; }

  // Two wholes and a number a token, for layers of the size of `widest`: the tokens of all ranks,
  // this rank's heads.
  void TakeScratch(const AttentionShape& widest, Arena& arena);

  // Room for the whole of a slice of so many rows: place 0 or 1.
  Tensor Whole(int place, int64_t slice_rows) const {
    return wholes_[place].Rows(0, sequences_ * SlicesOf(slice_rows).total);
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
  SequenceSlices SlicesOf(int64_t slice_rows) const {
    return slices_.OrEven(slice_rows / sequences_, sp_.size());
  }

  // Whether the end cuts some rank's slice short, so that whole slices are exchanged in padded_.
  bool Pads(const SequenceSlices& slices) const {
    return sp_.size() > 1 && slices.total < slices.each * sp_.size();
  }

  // This rank's place among whole slices.
  Tensor OwnOf(const SequenceSlices& slices, Tensor padded) const {
    return padded.Rows(sp_.rank() * slices.each, slices.each);
  }

  Operation GatherPadded(const SequenceSlices& slices, Tensor slice, Tensor whole);
  absl::Status ScatterSumPadded(const SequenceSlices& slices, Tensor whole, Tensor slice);

  Backend& backend_;
  Communicator& sp_;
  int64_t sequences_ = 1;
  SequenceSlices last_;
  SequenceSlices slices_;
  Tensor wholes_[2];
  Tensor row_sums_;
  Tensor padded_;  // whole slices of one sequence; empty where none is cut short
};

}  // namespace lasp::worker
