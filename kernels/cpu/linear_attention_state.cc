// The states of linear attention: KV_loc, dKV_loc and the hops between ranks.
#include "kernels/cpu/linear_attention_blocks.h"

namespace lasp::kernels::cpu {

template <typename T>
void LocalState(const LocalStateArgs<T>& args) {
  const LinearAttentionShape& shape = args.shape;
  const TileSizes<T> sizes(shape);
  const int64_t blocks = BlockCount(shape);
  const int64_t state_elements = sizes.state_rows * shape.value_size;
  const int64_t scratch_elements = sizes.tables + sizes.keys + sizes.values + sizes.state;
  ForEachHead<T>(
      shape, scratch_elements,
      [&](int64_t pair, int64_t batch, int64_t head_index, Scratch<T>& scratch) {
        const AttentionHead<T> head(shape, head_index, scratch.Take(sizes.tables));
        T* const keys = scratch.Take(sizes.keys);
        T* const values = scratch.Take(sizes.values);
        T* const state = scratch.Take(sizes.state);
        const Rows<const T> k = RowsOf(args.k, batch, head_index);
        const Rows<const T> v = RowsOf(args.v, batch, head_index);
        std::fill_n(state, sizes.state, T{0});
        for (int64_t index = 0; index < blocks; ++index) {
          const Block block = BlockAt(shape, index);
          if (args.block_states != nullptr) {
            StoreTile(sizes.state_rows, shape.value_size, state, false,
                      args.block_states + (pair * blocks + index) * state_elements,
                      shape.value_size);
          }
          // state = lambda^L state + K^T diag(lambda^{L-1-j}) V, then its origin moves to the next
          // block.
          head.LoadKeys(block.length, k, block.start, keys);
          ScaleRows(block.length, sizes.state_rows, head.KeyScale(block.length), keys, keys);
          LoadTile(block.length, shape.value_size, v.At(block.start), v.stride, values);
          if (index > 0) {
            DecayState(sizes.state_rows, shape.value_size, head.Decay(block.length), state,
                       sizes.value_stride, state, sizes.value_stride);
          }
          TileGemm<T>({.m = sizes.state_rows,
                       .n = shape.value_size,
                       .k = block.length,
                       .a = keys,
                       .a_stride = sizes.key_stride,
                       .transpose_a = true,
                       .b = values,
                       .b_stride = sizes.value_stride,
                       .c = state,
                       .c_stride = sizes.value_stride,
                       .accumulate = true});
          if (head.rotary()) {
            head.MoveAhead(block.length, 1.0, state, sizes.value_stride, state, sizes.value_stride);
          }
        }
        StoreTile(sizes.state_rows, shape.value_size, state, false,
                  args.state + pair * state_elements, shape.value_size);
      });
}

template <typename T>
void LocalStateGradient(const LocalStateGradientArgs<T>& args) {
  const LinearAttentionShape& shape = args.shape;
  const TileSizes<T> sizes(shape);
  const int64_t blocks = BlockCount(shape);
  const int64_t state_elements = sizes.state_rows * shape.value_size;
  const int64_t scratch_elements = sizes.tables + sizes.keys + sizes.values + sizes.state;
  ForEachHead<T>(shape, scratch_elements,
                 [&](int64_t pair, int64_t batch, int64_t head_index, Scratch<T>& scratch) {
                   const AttentionHead<T> head(shape, head_index, scratch.Take(sizes.tables));
                   T* const queries = scratch.Take(sizes.keys);
                   T* const output_gradient = scratch.Take(sizes.values);
                   T* const gradient = scratch.Take(sizes.state);
                   const Rows<const T> q = RowsOf(args.q, batch, head_index);
                   const Rows<const T> d_o = RowsOf(args.output_gradient, batch, head_index);
                   std::fill_n(gradient, sizes.state, T{0});
                   for (int64_t index = blocks - 1; index >= 0; --index) {
                     const Block block = BlockAt(shape, index);
                     if (args.block_state_gradients != nullptr) {
                       StoreTile(
                           sizes.state_rows, shape.value_size, gradient, false,
                           args.block_state_gradients + (pair * blocks + index) * state_elements,
                           shape.value_size);
                     }
                     // gradient = lambda^L (gradient, moved back over the block) + Q^T
                     // diag(lambda^{i+1}) dO
                     head.LoadKeys(block.length, q, block.start, queries);
                     ScaleRows(block.length, sizes.state_rows, head.QueryScale(), queries, queries);
                     LoadTile(block.length, shape.value_size, d_o.At(block.start), d_o.stride,
                              output_gradient);
                     if (index < blocks - 1) {
                       head.MoveBack(block.length, head.Decay(block.length), gradient,
                                     sizes.value_stride, gradient, sizes.value_stride);
                     }
                     TileGemm<T>({.m = sizes.state_rows,
                                  .n = shape.value_size,
                                  .k = block.length,
                                  .a = queries,
                                  .a_stride = sizes.key_stride,
                                  .transpose_a = true,
                                  .b = output_gradient,
                                  .b_stride = sizes.value_stride,
                                  .c = gradient,
                                  .c_stride = sizes.value_stride,
                                  .accumulate = true});
                   }
                   StoreTile(sizes.state_rows, shape.value_size, gradient, false,
                             args.state_gradient + pair * state_elements, shape.value_size);
                 });
}

namespace {

// state_out = lambda^C (state_in, its origin moved over the slice) + local
template <typename T>
void Hop(const StateHopArgs<T>& args, bool back) {
  const LinearAttentionShape& shape = args.shape;
  const int64_t rows = StateRows(shape);
  const int64_t state_elements = rows * shape.value_size;
  if (args.state_in == nullptr) {
    if (args.state_out != args.local) {
      std::copy_n(args.local, StateElements(shape), args.state_out);
    }
    return;
  }
  // The local state is added from a copy, because state_out may be either of the inputs.
  const TileSizes<T> sizes(shape);
  const int64_t scratch_elements = sizes.tables + sizes.state;
  ForEachHead<T>(shape, scratch_elements,
                 [&](int64_t pair, int64_t /*batch*/, int64_t head_index, Scratch<T>& scratch) {
                   const AttentionHead<T> head(shape, head_index, scratch.Take(sizes.tables));
                   T* const moved = scratch.Take(sizes.state);
                   Turn turn;
                   if (head.rotary()) {
                     turn = Turn::Of(shape.theta + head_index * shape.key_size, shape.key_size,
                                     shape.tokens);
                     if (back) {
                       turn = turn.Reversed();
                     }
                   }
                   const int64_t offset = pair * state_elements;
                   head.Move(turn, head.Decay(shape.tokens), args.state_in + offset,
                             shape.value_size, moved, sizes.value_stride);
                   const T* const local = args.local + offset;
                   T* const out = args.state_out + offset;
                   if (out != local) {
                     std::copy_n(local, state_elements, out);
                   }
                   StoreTile(rows, shape.value_size, moved, true, out, shape.value_size);
                 });
}

}  // namespace

template <typename T>
void StateHop(const StateHopArgs<T>& args) {
  Hop(args, false);
}

template <typename T>
void StateGradientHop(const StateHopArgs<T>& args) {
  Hop(args, true);
}

#define LASP_INSTANTIATE(T)                                              \
  template void LocalState<T>(const LocalStateArgs<T>&);                 \
  template void LocalStateGradient<T>(const LocalStateGradientArgs<T>&); \
  template void StateHop<T>(const StateHopArgs<T>&);                     \
  template void StateGradientHop<T>(const StateHopArgs<T>&);
LASP_INSTANTIATE(float)
LASP_INSTANTIATE(double)
#undef LASP_INSTANTIATE

}  // namespace lasp::kernels::cpu
