// The outputs of linear attention: within a slice, and from the state before it.
#include "kernels/cpu/linear_attention_blocks.h"

namespace lasp::kernels::cpu {

template <typename T>
void IntraOutput(const IntraOutputArgs<T>& args) {
  const LinearAttentionShape& shape = args.shape;
  const TileSizes<T> sizes(shape);
  const int64_t blocks = BlockCount(shape);
  const int64_t state_elements = sizes.state_rows * shape.value_size;
  const int64_t scratch_elements = sizes.tables + 2 * sizes.keys + sizes.keys_transposed +
                                   2 * sizes.values + sizes.state + sizes.scores;
  ForEachHead<T>(
      shape, scratch_elements,
      [&](int64_t pair, int64_t batch, int64_t head_index, Scratch<T>& scratch) {
        const AttentionHead<T> head(shape, head_index, scratch.Take(sizes.tables));
        T* const queries = scratch.Take(sizes.keys);
        T* const keys = scratch.Take(sizes.keys);
        T* const keys_transposed = scratch.Take(sizes.keys_transposed);
        T* const values = scratch.Take(sizes.values);
        T* const output = scratch.Take(sizes.values);
        T* const state = scratch.Take(sizes.state);
        T* const scores = scratch.Take(sizes.scores);
        const Rows<const T> q = RowsOf(args.q, batch, head_index);
        const Rows<const T> k = RowsOf(args.k, batch, head_index);
        const Rows<const T> v = RowsOf(args.v, batch, head_index);
        const Rows<T> o = RowsOf(args.output, batch, head_index);
        for (int64_t index = 0; index < blocks; ++index) {
          const Block block = BlockAt(shape, index);
          const int64_t score_stride = TileStride<T>(block.length);
          head.LoadKeys(block.length, q, block.start, queries);
          head.LoadKeys(block.length, k, block.start, keys);
          LoadTile(block.length, shape.value_size, v.At(block.start), v.stride, values);
          // scores = Q K^T (.) M
          TransposeTile(block.length, sizes.state_rows, keys, keys_transposed);
          TileGemm<T>({.m = block.length,
                       .n = block.length,
                       .k = sizes.state_rows,
                       .a = queries,
                       .a_stride = sizes.key_stride,
                       .b = keys_transposed,
                       .b_stride = score_stride,
                       .c = scores,
                       .c_stride = score_stride,
                       .part = Part::kLowerC});
          MaskDecay(block.length, head.KeyScale(block.length), scores);
          BlockDocuments<T> documents(shape, batch, index);
          documents.Part(block.length, score_stride, scores);
          // output = diag(lambda^{i+1}) Q S + scores V; the first block's state is zero.
          if (index > 0) {
            LoadTile(sizes.state_rows, shape.value_size,
                     args.block_states + (pair * blocks + index) * state_elements, shape.value_size,
                     state);
            TileGemm<T>({.m = block.length,
                         .n = shape.value_size,
                         .k = sizes.state_rows,
                         .a = queries,
                         .a_stride = sizes.key_stride,
                         .b = state,
                         .b_stride = sizes.value_stride,
                         .c = output,
                         .c_stride = sizes.value_stride,
                         .row_scale = documents.SeeingBefore(block.length, head.QueryScale())});
          }
          TileGemm<T>({.m = block.length,
                       .n = shape.value_size,
                       .k = block.length,
                       .a = scores,
                       .a_stride = score_stride,
                       .b = values,
                       .b_stride = sizes.value_stride,
                       .c = output,
                       .c_stride = sizes.value_stride,
                       .accumulate = index > 0,
                       .part = Part::kLowerA});
          StoreTile(block.length, shape.value_size, output, false, o.At(block.start), o.stride);
        }
      });
}

template <typename T>
void AddInterOutput(const AddInterOutputArgs<T>& args) {
  const LinearAttentionShape& shape = args.shape;
  const TileSizes<T> sizes(shape);
  const int64_t state_elements = sizes.state_rows * shape.value_size;
  const int64_t scratch_elements = sizes.tables + sizes.keys + sizes.values + sizes.state;
  ForEachHead<T>(shape, scratch_elements,
                 [&](int64_t pair, int64_t batch, int64_t head_index, Scratch<T>& scratch) {
                   const AttentionHead<T> head(shape, head_index, scratch.Take(sizes.tables));
                   T* const queries = scratch.Take(sizes.keys);
                   T* const output = scratch.Take(sizes.values);
                   T* const state = scratch.Take(sizes.state);
                   const Rows<const T> q = RowsOf(args.q, batch, head_index);
                   const Rows<T> o = RowsOf(args.output, batch, head_index);
                   const auto add = [&](const Block& block, const T* scale, bool /*moved*/) {
                     head.LoadKeys(block.length, q, block.start, queries);
                     TileGemm<T>({.m = block.length,
                                  .n = shape.value_size,
                                  .k = sizes.state_rows,
                                  .a = queries,
                                  .a_stride = sizes.key_stride,
                                  .b = state,
                                  .b_stride = sizes.value_stride,
                                  .c = output,
                                  .c_stride = sizes.value_stride,
                                  .row_scale = scale});
                     StoreTile(block.length, shape.value_size, output, true, o.At(block.start),
                               o.stride);
                   };
                   ForEachBlockInReach<T>(shape, head, batch, args.state_in + pair * state_elements,
                                          state, add);
                 });
}

#define LASP_INSTANTIATE(T)                                \
  template void IntraOutput<T>(const IntraOutputArgs<T>&); \
  template void AddInterOutput<T>(const AddInterOutputArgs<T>&);
LASP_INSTANTIATE(float)
LASP_INSTANTIATE(double)
#undef LASP_INSTANTIATE

}  // namespace lasp::kernels::cpu
