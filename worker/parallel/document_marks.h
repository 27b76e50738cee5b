// Where documents start in a macro-chunk, as attention reads it (kernels/linear_attention.h,
// document_marks): of every rank's slice, since a rank may hop over the slices of others, and of
// all tokens in a row, since a rank may have some heads of all tokens.
#pragma once

#include <cstdint>

#include "worker/device/tensor.h"
#include "worker/parallel/sequence_slices.h"

namespace lasp::worker {

// Of a micro-batch's sequences over an SP group.
struct DocumentMarksLayout {
  int64_t sequences = 0;
  int ranks = 1;
  SequenceSlices slices;

  // Words of 64 bits, a bit a token.
  static int64_t WordsOf(int64_t tokens) { return (tokens + 63) / 64; }

  // Each rank's slices have room for `each` tokens, and use the first words of it.
  int64_t BeginOf(int rank) const { return rank * sequences * WordsOf(slices.each); }

  int64_t BeginOfWhole() const { return BeginOf(ranks); }

  int64_t words() const { return BeginOfWhole() + sequences * WordsOf(slices.total); }
};

// On the device. A view; immutable.
class DocumentMarks {
 public:
  // No document starts in the macro-chunk.
  DocumentMarks() = default;

  // words: kInt32 [1, 2 * layout.words()], as Batch has them; `rank` is this one.
  DocumentMarks(Tensor words, const DocumentMarksLayout& layout, int rank)
      : words_(words), layout_(layout), rank_(rank) {}

  bool empty() const { return words_.empty(); }

  // AttentionShape::document_marks of a rank's slices, of this one's, and of all tokens.
  Tensor Of(int rank) const {
    return Part(layout_.BeginOf(rank), empty() ? 0 : layout_.slices.Of(rank));
  }

  Tensor Own() const { return Of(rank_); }

  Tensor Whole() const { return Part(layout_.BeginOfWhole(), layout_.slices.total); }

 private:
  Tensor Part(int64_t begin, int64_t tokens) const {
    const int64_t columns = 2 * DocumentMarksLayout::WordsOf(tokens);
    return empty() ? Tensor{}
                   : words_.Columns(2 * begin, layout_.sequences * columns)
                         .Reshape(layout_.sequences, columns);
  }

  Tensor words_;
  DocumentMarksLayout layout_;
  int rank_ = 0;
};

}  // namespace lasp::worker
