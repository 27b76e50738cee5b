// The loops that all parts of linear attention share: over (batch, head) pairs, over blocks.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/document_marks.h"
#include "kernels/cpu/linear_attention_head.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/tile.h"

namespace lasp::kernels::cpu {

// Sizes of the tiles of one head, in elements.
template <typename T>
struct TileSizes {
  explicit TileSizes(const LinearAttentionShape& shape)
      : state_rows(StateRows(shape)),
        key_stride(TileStride<T>(state_rows)),
        value_stride(TileStride<T>(shape.value_size)),
        keys(TileElements<T>(kLinearAttentionBlock, state_rows)),
        keys_transposed(TileElements<T>(state_rows, kLinearAttentionBlock)),
        values(TileElements<T>(kLinearAttentionBlock, shape.value_size)),
        values_transposed(TileElements<T>(shape.value_size, kLinearAttentionBlock)),
        state(TileElements<T>(state_rows, shape.value_size)),
        state_transposed(TileElements<T>(shape.value_size, state_rows)),
        scores(TileElements<T>(kLinearAttentionBlock, kLinearAttentionBlock)),
        tables(Scratch<T>::Rounded(AttentionHead<T>::TableElements(shape))) {}

  int64_t state_rows;
  int64_t key_stride;    // of tiles [64, state_rows]
  int64_t value_stride;  // of tiles [64 or state_rows, value_size]
  int64_t keys;
  int64_t keys_transposed;
  int64_t values;
  int64_t values_transposed;
  int64_t state;
  int64_t state_transposed;
  int64_t scores;
  int64_t tables;
};

// Calls body(pair, batch, head, scratch) for every (batch, head) pair, pairs spread over the
// threads.
template <typename T, typename Body>
void ForEachHead(const LinearAttentionShape& shape, int64_t scratch_elements, const Body& body) {
  const int64_t pairs = shape.batch * shape.heads;
  const int64_t cost = shape.tokens * (shape.key_size + shape.value_size) * 32;
  ParallelRanges(pairs, cost, [&](int64_t begin, int64_t end) {
    for (int64_t pair = begin; pair < end; ++pair) {
      Scratch<T> scratch(scratch_elements);
      body(pair, pair / shape.heads, pair % shape.heads, scratch);
    }
  });
}

struct Block {
  int64_t index;
  int64_t start;   // first token
  int64_t length;  // 64, or fewer in a slice's last block
};

inline Block BlockAt(const LinearAttentionShape& shape, int64_t index) {
  const int64_t start = index * kLinearAttentionBlock;
  return {index, start, std::min(kLinearAttentionBlock, shape.tokens - start)};
}

// lambda^{start + i} for i in [0, length), the scale of rows that lie far from a state; false where
// even the largest has left the range of normal numbers, so that nothing is left to add.
template <typename T>
bool FarScale(const AttentionHead<T>& head, int64_t start, int64_t length, T* scale);

// Visits the blocks of a slice to which the state before it still reaches, in order: calls
// body(block, scale, moved) with lambda^{i+1} of each row's distance from the slice's start, and
// with `state`, a tile, holding `state_in` as seen from the block's start. `moved` says whether the
// tile has changed since the last block. The last block ends where a document starts.
template <typename T, typename Body>
void ForEachBlockInReach(const LinearAttentionShape& shape, const AttentionHead<T>& head,
                         int64_t batch, const T* state_in, T* state, const Body& body) {
  const int64_t reach = FirstStart(shape, batch);
  const int64_t blocks = (reach + kLinearAttentionBlock - 1) / kLinearAttentionBlock;
  // From the slice's start to the block's.
  Turn turn = head.rotary() ? Turn::None(shape.key_size) : Turn{};
  T scale[kLinearAttentionBlock];
  for (int64_t index = 0; index < blocks; ++index) {
    Block block = BlockAt(shape, index);
    block.length = std::min(block.length, reach - block.start);
    if (!FarScale(head, block.start + 1, block.length, scale)) {
      return;
    }
    const bool moved = head.rotary() || index == 0;
    if (moved) {
      if (index > 0) {
        turn.Advance(head.BlockTurn(kLinearAttentionBlock));
      }
      head.Move(turn, 1.0, state_in, shape.value_size, nullptr, state,
                TileStride<T>(shape.value_size));
    }
    body(block, scale, moved);
  }
}

// theta_gradient[head] += the sums of its (batch, head) pairs, in the order of the batch.
template <typename T>
void AddThetaSums(const LinearAttentionShape& shape, const double* pair_sums, T* theta_gradient);

}  // namespace lasp::kernels::cpu
