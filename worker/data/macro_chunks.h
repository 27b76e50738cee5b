// A sequence cut into macro-chunks, each spread over the SP group: macro-chunk j is the tokens from
// j * P * c on, of which SP rank t holds the c from j * P * c + t * c. Where the sequence ends,
// slices are short or empty. All that is kept at once in full is one macro-chunk.
#pragma once

#include <algorithm>
#include <cstdint>

#include "worker/parallel/sequence_slices.h"

namespace lasp::worker {

// Immutable.
class MacroChunks {
 public:
  // chunk_tokens >= 1: c, at most what a rank would hold of the whole.
  MacroChunks(int64_t sequence_length, int sp_size, int64_t chunk_tokens)
      : sequence_length_(sequence_length),
        sp_size_(sp_size),
        slice_tokens_(std::min(chunk_tokens, (sequence_length + sp_size - 1) / sp_size)) {}

  // The whole sequence at once; sequence_length a multiple of sp_size.
  static MacroChunks One(int64_t sequence_length, int sp_size) {
    return {sequence_length, sp_size, sequence_length / sp_size};
  }

  int64_t count() const { return (sequence_length_ + tokens() - 1) / tokens(); }

  // c.
  int64_t slice_tokens() const { return slice_tokens_; }

  // All ranks' of a macro-chunk.
  SequenceSlices SlicesOf(int64_t chunk) const {
    return {.each = slice_tokens_,
            .total = std::min(tokens(), sequence_length_ - chunk * tokens())};
  }

  SequenceSlices last_slices() const { return SlicesOf(count() - 1); }

  // Where a rank's slice begins in the sequence.
  int64_t SliceBegin(int64_t chunk, int sp_rank) const {
    return chunk * tokens() + SlicesOf(chunk).Begin(sp_rank);
  }

  int64_t SliceTokens(int64_t chunk, int sp_rank) const { return SlicesOf(chunk).Of(sp_rank); }

  // A sequence is trained in so many passes over a macro-chunk: forward from the first to the last,
  // and back from the one before the last, which is not computed twice.
  int64_t pass_count() const { return 2 * count() - 1; }

  // The macro-chunk of a pass.
  int64_t ChunkOfPass(int64_t pass) const {
    return pass < count() ? pass : pass_count() - 1 - pass;
  }

 private:
  int64_t tokens() const { return slice_tokens_ * sp_size_; }

  int64_t sequence_length_;
  int sp_size_;
  int64_t slice_tokens_;
};

}  // namespace lasp::worker
