// How a stretch of a sequence lies on the ranks of an SP group.
#pragma once

#include <algorithm>
#include <cstdint>

namespace lasp::worker {

// Slices of one size, in the order of the ranks; where the sequence ends, short or empty ones.
struct SequenceSlices {
  int64_t each = 0;   // tokens of a slice that the end does not reach; 0: nothing is said
  int64_t total = 0;  // of all ranks, of one sequence

  int64_t Begin(int rank) const { return std::min(total, rank * each); }

  int64_t Of(int rank) const { return std::min(each, total - Begin(rank)); }

  // Of the slice that the end cuts short; 0 where it cuts none.
  int64_t CutShort() const { return each > 0 ? total % each : 0; }

  // These; where nothing is said, as many tokens on every rank.
  SequenceSlices OrEven(int64_t tokens, int ranks) const {
    return each > 0 ? *this : SequenceSlices{.each = tokens, .total = tokens * ranks};
  }
};

}  // namespace lasp::worker
