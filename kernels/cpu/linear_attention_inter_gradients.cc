// The gradients of linear attention that come from outside a slice: through the state before it and
// through the gradient of the state after it.
#include <vector>

#include "kernels/cpu/linear_attention_blocks.h"

namespace lasp::kernels::cpu {

template <typename T>
void AddInterQueryGradients(const AddInterQueryGradientsArgs<T>& args) {
  const LinearAttentionShape& shape = args.shape;
  const TileSizes<T> sizes(shape);
  const bool learned = args.theta_gradient != nullptr && shape.theta != nullptr;
  std::vector<double> theta_sums(
      learned ? static_cast<size_t>(shape.batch * shape.heads * shape.key_size) : 0);
  const int64_t scratch_elements =
      sizes.tables + sizes.keys + sizes.values + sizes.state + sizes.state_transposed;
  ForEachHead<T>(shape, scratch_elements,
                 [&](int64_t pair, int64_t batch, int64_t head_index, Scratch<T>& scratch) {
                   const AttentionHead<T> head(shape, head_index, scratch.Take(sizes.tables));
                   T* const query_gradient = scratch.Take(sizes.keys);
                   T* const output_gradient = scratch.Take(sizes.values);
                   T* const state = scratch.Take(sizes.state);
                   T* const state_transposed = scratch.Take(sizes.state_transposed);
                   const Rows<const T> q = RowsOf(args.q, batch, head_index);
                   const Rows<const T> d_o = RowsOf(args.output_gradient, batch, head_index);
                   const Rows<T> d_q = RowsOf(args.q_gradient, batch, head_index);
                   const auto add = [&](const Block& block, const T* scale, bool moved) {
                     if (moved) {
                       TransposeTile(sizes.state_rows, shape.value_size, state, state_transposed);
                     }
                     LoadTile(block.length, shape.value_size, d_o.At(block.start), d_o.stride,
                              output_gradient);
                     TileGemm<T>({.m = block.length,
                                  .n = sizes.state_rows,
                                  .k = shape.value_size,
                                  .a = output_gradient,
                                  .a_stride = sizes.value_stride,
                                  .b = state_transposed,
                                  .b_stride = sizes.key_stride,
                                  .c = query_gradient,
                                  .c_stride = sizes.key_stride,
                                  .row_scale = scale});
                     head.StoreKeys(block.length, query_gradient, true, d_q, block.start);
                     if (learned) {  // the distance from the slice's start
                       head.AddTheta(block.length, q, block.start, query_gradient,
                                     static_cast<double>(block.start), 1,
                                     theta_sums.data() + pair * shape.key_size);
                     }
                   };
                   ForEachBlockInReach<T>(
                       shape, head, batch,
                       args.state_in + pair * sizes.state_rows * shape.value_size, state, add);
                 });
  if (learned) {
    AddThetaSums(shape, theta_sums.data(), args.theta_gradient);
  }
}

template <typename T>
void AddInterKeyValueGradients(const AddInterKeyValueGradientsArgs<T>& args) {
  const LinearAttentionShape& shape = args.shape;
  const TileSizes<T> sizes(shape);
  const int64_t blocks = BlockCount(shape);
  const bool learned = args.theta_gradient != nullptr && shape.theta != nullptr;
  std::vector<double> theta_sums(
      learned ? static_cast<size_t>(shape.batch * shape.heads * shape.key_size) : 0);
  const int64_t scratch_elements =
      sizes.tables + 2 * sizes.keys + 2 * sizes.values + sizes.state + sizes.state_transposed;
  ForEachHead<T>(
      shape, scratch_elements,
      [&](int64_t pair, int64_t batch, int64_t head_index, Scratch<T>& scratch) {
        const AttentionHead<T> head(shape, head_index, scratch.Take(sizes.tables));
        T* const keys = scratch.Take(sizes.keys);
        T* const key_gradient = scratch.Take(sizes.keys);
        T* const values = scratch.Take(sizes.values);
        T* const value_gradient = scratch.Take(sizes.values);
        T* const state_gradient = scratch.Take(sizes.state);
        T* const state_gradient_transposed = scratch.Take(sizes.state_transposed);
        const int64_t state_offset = pair * sizes.state_rows * shape.value_size;
        const T* const state_gradient_in = args.state_gradient_in + state_offset;
        double* const theta_sum = learned ? theta_sums.data() + pair * shape.key_size : nullptr;
        const Rows<const T> k = RowsOf(args.k, batch, head_index);
        const Rows<const T> v = RowsOf(args.v, batch, head_index);
        const Rows<T> d_k = RowsOf(args.k_gradient, batch, head_index);
        const Rows<T> d_v = RowsOf(args.v_gradient, batch, head_index);
        const int64_t last_start = LastStart(shape, batch);
        // From the block's start to the slice's end, and its inverse.
        Turn turn = head.rotary() ? Turn::None(shape.key_size) : Turn{};
        T distances[kLinearAttentionBlock];
        T scale[kLinearAttentionBlock];
        for (int64_t index = blocks - 1; index >= 0; --index) {
          const Block block = BlockAt(shape, index);
          // Row j of the block lies end_distance + (L - 1 - j) tokens before the slice's last.
          const int64_t end_distance = shape.tokens - block.start - block.length;
          if (block.start + block.length <= last_start ||
              !FarScale(head, end_distance, block.length, distances)) {
            break;
          }
          std::reverse_copy(distances, distances + block.length, scale);
          // The rows of documents before the last.
          std::fill_n(scale, std::max<int64_t>(last_start - block.start, 0), T{0});
          if (head.rotary() || index == blocks - 1) {
            if (head.rotary()) {
              turn.Advance(head.BlockTurn(block.length));
            }
            head.Move(turn.Reversed(), 1.0, state_gradient_in, shape.value_size, nullptr,
                      state_gradient, sizes.value_stride);
            TransposeTile(sizes.state_rows, shape.value_size, state_gradient,
                          state_gradient_transposed);
          }
          LoadTile(block.length, shape.value_size, v.At(block.start), v.stride, values);
          TileGemm<T>({.m = block.length,
                       .n = sizes.state_rows,
                       .k = shape.value_size,
                       .a = values,
                       .a_stride = sizes.value_stride,
                       .b = state_gradient_transposed,
                       .b_stride = sizes.key_stride,
                       .c = key_gradient,
                       .c_stride = sizes.key_stride,
                       .row_scale = scale});
          head.StoreKeys(block.length, key_gradient, true, d_k, block.start);
          if (learned) {  // the distance to the slice's end
            head.AddTheta(block.length, k, block.start, key_gradient,
                          static_cast<double>(block.start - shape.tokens), 1, theta_sum);
          }
          head.LoadKeys(block.length, k, block.start, keys);
          TileGemm<T>({.m = block.length,
                       .n = shape.value_size,
                       .k = sizes.state_rows,
                       .a = keys,
                       .a_stride = sizes.key_stride,
                       .b = state_gradient,
                       .b_stride = sizes.value_stride,
                       .c = value_gradient,
                       .c_stride = sizes.value_stride,
                       .row_scale = scale});
          StoreTile(block.length, shape.value_size, value_gradient, true, d_v.At(block.start),
                    d_v.stride);
        }
        // States that cross the slice count its length.
        if (learned && args.state_in != nullptr && last_start < 0) {
          T* const state = state_gradient;
          const Turn whole =
              Turn::Of(shape.theta + head_index * shape.key_size, shape.key_size, shape.tokens);
          head.Move(whole, head.Decay(shape.tokens), args.state_in + state_offset, shape.value_size,
                    nullptr, state, sizes.value_stride);
          AddThetaStates(shape.key_size, shape.value_size, static_cast<double>(shape.tokens),
                         state_gradient_in, shape.value_size, state, sizes.value_stride, theta_sum);
        }
      });
  if (learned) {
    AddThetaSums(shape, theta_sums.data(), args.theta_gradient);
  }
}

#define LASP_INSTANTIATE(T)                                                      \
  template void AddInterQueryGradients<T>(const AddInterQueryGradientsArgs<T>&); \
  template void AddInterKeyValueGradients<T>(const AddInterKeyValueGradientsArgs<T>&);
LASP_INSTANTIATE(float)
LASP_INSTANTIATE(double)
#undef LASP_INSTANTIATE

}  // namespace lasp::kernels::cpu
