// Where documents start in a sequence's slice (LinearAttentionShape::document_marks), and what that
// makes of the weights in a block.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "kernels/linear_attention.h"

namespace lasp::kernels::cpu {

inline uint64_t MarksOf(const LinearAttentionShape& shape, int64_t batch, int64_t block) {
  return shape.document_marks == nullptr ? 0
                                         : shape.document_marks[batch * BlockCount(shape) + block];
}

// Whether a document starts at a token of the slice.
inline bool StartsAt(const LinearAttentionShape& shape, int64_t batch, int64_t token) {
  const uint64_t marks = MarksOf(shape, batch, token / kLinearAttentionBlock);
  return (marks >> (token % kLinearAttentionBlock) & 1) != 0;
}

// The first token of the slice at which a document starts: those before it see KV_in. `tokens`
// where none starts.
inline int64_t FirstStart(const LinearAttentionShape& shape, int64_t batch) {
  for (int64_t block = 0; shape.document_marks != nullptr && block < BlockCount(shape); ++block) {
    if (const uint64_t marks = MarksOf(shape, batch, block); marks != 0) {
      return block * kLinearAttentionBlock + std::countr_zero(marks);
    }
  }
  return shape.tokens;
}

// The last token of the slice at which a document starts: KV_loc is of the tokens from there on. -1
// where none starts.
inline int64_t LastStart(const LinearAttentionShape& shape, int64_t batch) {
  for (int64_t block = BlockCount(shape) - 1; shape.document_marks != nullptr && block >= 0;
       --block) {
    if (const uint64_t marks = MarksOf(shape, batch, block); marks != 0) {
      return (block + 1) * kLinearAttentionBlock - 1 - std::countl_zero(marks);
    }
  }
  return -1;
}

// The documents of one block. Where none starts in it all is as it was given.
template <typename T>
class BlockDocuments {
 public:
  BlockDocuments(const LinearAttentionShape& shape, int64_t batch, int64_t block)
      : marks_(MarksOf(shape, batch, block)) {}

  bool start() const { return marks_ != 0; }

  // The weights of rows against the state before the block: zero from the first start on. Valid
  // until the next call of this or of SeenBehind.
  const T* SeeingBefore(int64_t length, const T* scale) {
    return start() ? Kept(length, scale, 0, std::min<int64_t>(length, std::countr_zero(marks_)))
                   : scale;
  }

  // The weights of rows in the state after the block: zero before the last start.
  const T* SeenBehind(int64_t length, const T* scale) {
    return start()
               ? Kept(length, scale, kLinearAttentionBlock - 1 - std::countl_zero(marks_), length)
               : scale;
  }

  // Zero where row i and column j <= i of a block's products are of two documents.
  void Part(int64_t length, int64_t stride, T* scores) const {
    if (!start()) {
      return;
    }
    int64_t begin = 0;
    for (int64_t i = 0; i < length; ++i) {
      begin = (marks_ >> i & 1) != 0 ? i : begin;
      std::fill_n(scores + i * stride, begin, T{0});
    }
  }

 private:
  const T* Kept(int64_t length, const T* scale, int64_t begin, int64_t end) {
    std::fill_n(kept_, length, T{0});
    std::copy(scale + begin, scale + std::max(begin, end), kept_ + begin);
    return kept_;
  }

  uint64_t marks_;
  T kept_[kLinearAttentionBlock];
};

}  // namespace lasp::kernels::cpu
