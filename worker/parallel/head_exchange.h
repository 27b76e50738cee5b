// All-to-alls that give each rank all tokens of its share of the heads, and back (DeepSpeed-
// Ulysses, arXiv 2309.14509).
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "worker/device/arena.h"
#include "worker/device/backend.h"
#include "worker/device/tensor.h"
#include "worker/parallel/communicator.h"
#include "worker/parallel/sequence_slices.h"

namespace lasp::worker {

// What is exchanged, on both of its sides.
struct BothViews {
  Tensor local;  // [batch * this rank's tokens, columns of all heads]
  Tensor whole;  // [batch * all tokens, columns of this rank's heads]: contiguous
};

// Errors are those of the communicator. Not thread-safe.
class HeadExchange {
 public:
  // Both must outlive this.
  HeadExchange(Backend* backend, Communicator* group) : backend_(*backend), group_(*group) {}

  // For `views` at a time, of at most so many local rows and whole columns.
  void TakeScratch(int64_t views, int64_t local_rows, int64_t whole_columns, Arena& arena);

  // From all heads of this rank's tokens to this rank's heads of all tokens. What is under way
  // together has places of its own: views[i] has place first_place + i.
  Operation HeadsForTokens(int64_t batch, const SequenceSlices& slices,
                           const std::vector<BothViews>& views, size_t first_place = 0);

  // The way back, to its end.
  absl::Status TokensForHeads(int64_t batch, const SequenceSlices& slices,
                              const std::vector<BothViews>& views);

 private:
  // Of a tensor over the whole of the slices: the tokens of a rank in one of the sequences.
  static Tensor TokensOf(const SequenceSlices& slices, Tensor whole, int64_t sequence, int rank) {
    return whole.Rows(sequence * slices.total + slices.Begin(rank), slices.Of(rank));
  }

  // Of a tensor over this rank's tokens: the heads of a rank.
  Tensor HeadsOf(Tensor local, int rank) const {
    const int64_t columns = local.columns / group_.size();
    return local.Columns(columns * rank, columns);
  }

  // One view's tokens of this rank and heads of a rank, on their way.
  Tensor Packed(size_t place, int rank, int64_t rows, int64_t columns) const;

  // Ranks begin with different peers, so that none serves all at once.
  int Peer(int turn) const { return (group_.rank() + turn) % group_.size(); }

  absl::Status WaitFor(Operation& operation);

  Backend& backend_;
  Communicator& group_;
  int64_t room_ = 0;  // elements of a place
  // What goes to each rank or has come from it: a row a rank, of one place after another.
  Tensor packed_;
};

}  // namespace lasp::worker
