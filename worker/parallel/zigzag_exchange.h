// Moves the halves of an SP group's slices so that every rank has as much causal attention to
// compute as the others: of 2 P chunks in a row, rank r computes chunk r and chunk 2 P - 1 - r
// (the zigzag balance of ring attention, https://github.com/zhuzilin/ring-flash-attention).
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "worker/device/arena.h"
#include "worker/device/backend.h"
#include "worker/device/tensor.h"
#include "worker/parallel/communicator.h"

namespace lasp::worker {

// Which chunk lies where. A rank has two places, of which the first holds a chunk of even number
// and the other one of odd number: since 2 P - 1 is odd, no two of one kind meet.
struct ZigzagChunks {
  int ranks = 1;

  int At(int rank, int place) const { return rank % 2 == place ? rank : 2 * ranks - 1 - rank; }

  int RankOf(int chunk) const { return std::min(chunk, 2 * ranks - 1 - chunk); }

  // Of the rank's place with the earlier chunk.
  static int EarlierPlace(int rank) { return rank % 2; }
};

// One tensor in both orders.
struct ZigzagViews {
  Tensor slice;   // [batch * tokens, columns]: this rank's slice, each sequence's tokens in a row
  Tensor zigzag;  // [2 * batch * tokens / 2, columns], contiguous: a place after the other
};

// Tokens of a slice are even in number. Errors are those of the communicator. Not thread-safe.
class ZigzagExchange {
 public:
  // Both must outlive this.
  ZigzagExchange(Backend* backend, Communicator* group)
      : backend_(*backend), group_(*group), chunks_{group->size()} {}

  // For tensors of at most so many rows and columns.
  void TakeScratch(int64_t rows, int64_t columns, Arena& arena);

  const ZigzagChunks& chunks() const { return chunks_; }

  // One half of either order: place 0 or 1.
  static Tensor Place(Tensor zigzag, int place) {
    return zigzag.Rows(place * (zigzag.rows / 2), zigzag.rows / 2);
  }

  // From slices to the zigzag order. `way`, 0 or 1: what is under way together has ways of its own.
  Operation Scatter(int64_t batch, const ZigzagViews& views, size_t way);

  // Back, to the end; two tensors at most.
  absl::Status Gather(int64_t batch, const std::vector<ZigzagViews>& views);

 private:
  // Of a slice: the tokens of one sequence's first or second half.
  static Tensor Half(Tensor slice, int64_t batch, int64_t sequence, int half) {
    const int64_t tokens = slice.rows / batch / 2;
    return slice.Rows((2 * sequence + half) * tokens, tokens);
  }

  // Of a slice's half: contiguous, a sequence after the other.
  Tensor Packed(size_t way, int half, Tensor slice) const;

  Backend& backend_;
  Communicator& group_;
  const ZigzagChunks chunks_;
  std::array<Tensor, 2> packed_;
};

}  // namespace lasp::worker
