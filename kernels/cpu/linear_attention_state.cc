// The states of linear attention: KV_loc, dKV_loc and the hops between ranks.
#include "kernels/cpu/linear_attention_blocks.h"

namespace lasp::kernels::cpu {

namespace {

// The recurrence of one head over its blocks.
template <typename T>
class Recurrence {
 public:
  Recurrence(const LinearAttentionShape& shape, const TileSizes<T>& sizes, int64_t head_index,
             Scratch<T>& scratch)
      : shape_(shape),
        sizes_(sizes),
        head_(shape, head_index, scratch.Take(sizes.tables)),
        keys_(scratch.Take(sizes.keys)),
        values_(scratch.Take(sizes.values)),
        increment_(scratch.Take(sizes.state)),
        state_(scratch.Take(sizes.state)) {
    std::fill_n(state_, sizes.state, T{0});
  }

  static int64_t ScratchElements(const TileSizes<T>& sizes) {
    return sizes.tables + sizes.keys + sizes.values + 2 * sizes.state;
  }

  const AttentionHead<T>& head() const { return head_; }

  // state = decay * state + K^T diag(scale) V over a block's rows of the keys (or queries) and
  // values, then its origin moves by `turn`.
  void Advance(const Block& block, Rows<const T> k, Rows<const T> v, double decay, const T* scale,
               const Turn& turn) {
    head_.LoadKeys(block.length, k, block.start, keys_);
    ScaleRows(block.length, sizes_.state_rows, scale, keys_, keys_);
    LoadTile(block.length, shape_.value_size, v.At(block.start), v.stride, values_);
    TileGemm<T>({.m = sizes_.state_rows,
                 .n = shape_.value_size,
                 .k = block.length,
                 .a = keys_,
                 .a_stride = sizes_.key_stride,
                 .transpose_a = true,
                 .b = values_,
                 .b_stride = sizes_.value_stride,
                 .c = increment_,
                 .c_stride = sizes_.value_stride});
    head_.Move(turn, decay, state_, sizes_.value_stride, increment_, state_, sizes_.value_stride);
  }

  void Store(T* target) const {
    StoreTile(sizes_.state_rows, shape_.value_size, state_, false, target, shape_.value_size);
  }

 private:
  const LinearAttentionShape& shape_;
  const TileSizes<T>& sizes_;
  AttentionHead<T> head_;
  T* keys_;
  T* values_;
  T* increment_;
  T* state_;
};

}  // namespace

template <typename T>
void LocalState(const LocalStateArgs<T>& args) {
  const LinearAttentionShape& shape = args.shape;
  const TileSizes<T> sizes(shape);
  const int64_t blocks = BlockCount(shape);
  const int64_t state_elements = sizes.state_rows * shape.value_size;
  ForEachHead<T>(
      shape, Recurrence<T>::ScratchElements(sizes),
      [&](int64_t pair, int64_t batch, int64_t head_index, Scratch<T>& scratch) {
        Recurrence<T> recurrence(shape, sizes, head_index, scratch);
        const AttentionHead<T>& head = recurrence.head();
        const Rows<const T> k = RowsOf(args.k, batch, head_index);
        const Rows<const T> v = RowsOf(args.v, batch, head_index);
        for (int64_t index = 0; index < blocks; ++index) {
          const Block block = BlockAt(shape, index);
          if (args.block_states != nullptr) {
            recurrence.Store(args.block_states + (pair * blocks + index) * state_elements);
          }
          BlockDocuments<T> documents(shape, batch, index);
          recurrence.Advance(block, k, v, documents.start() ? 0 : head.Decay(block.length),
                             documents.SeenBehind(block.length, head.KeyScale(block.length)),
                             head.BlockTurn(block.length));
        }
        recurrence.Store(args.state + pair * state_elements);
      });
}

template <typename T>
void LocalStateGradient(const LocalStateGradientArgs<T>& args) {
  const LinearAttentionShape& shape = args.shape;
  const TileSizes<T> sizes(shape);
  const int64_t blocks = BlockCount(shape);
  const int64_t state_elements = sizes.state_rows * shape.value_size;
  const Turn none = shape.theta == nullptr ? Turn{} : Turn::None(shape.key_size);
  ForEachHead<T>(
      shape, Recurrence<T>::ScratchElements(sizes),
      [&](int64_t pair, int64_t batch, int64_t head_index, Scratch<T>& scratch) {
        Recurrence<T> recurrence(shape, sizes, head_index, scratch);
        const AttentionHead<T>& head = recurrence.head();
        const Rows<const T> q = RowsOf(args.q, batch, head_index);
        const Rows<const T> d_o = RowsOf(args.output_gradient, batch, head_index);
        for (int64_t index = blocks - 1; index >= 0; --index) {
          const Block block = BlockAt(shape, index);
          if (args.block_state_gradients != nullptr) {
            recurrence.Store(args.block_state_gradients + (pair * blocks + index) * state_elements);
          }
          // The origin moves from this block's start to that of the block before, a full one.
          BlockDocuments<T> documents(shape, batch, index);
          recurrence.Advance(block, q, d_o, documents.start() ? 0 : head.Decay(block.length),
                             documents.SeeingBefore(block.length, head.QueryScale()),
                             index > 0 ? head.BlockTurnBack(kLinearAttentionBlock) : none);
        }
        recurrence.Store(args.state_gradient + pair * state_elements);
      });
}

namespace {

// state_out = lambda^C (state_in, its origin moved over the slice) + local; local alone where a
// document starts in the slice.
template <typename T>
void Hop(const StateHopArgs<T>& args, bool back) {
  const LinearAttentionShape& shape = args.shape;
  const int64_t state_elements = StateRows(shape) * shape.value_size;
  if (args.state_in == nullptr) {
    if (args.state_out != args.local) {
      std::copy_n(args.local, StateElements(shape), args.state_out);
    }
    return;
  }
  const TileSizes<T> sizes(shape);
  ForEachHead<T>(shape, sizes.tables + sizes.state,
                 [&](int64_t pair, int64_t batch, int64_t head_index, Scratch<T>& scratch) {
                   const T* const in = args.state_in + pair * state_elements;
                   const T* const local = args.local + pair * state_elements;
                   T* const out = args.state_out + pair * state_elements;
                   if (FirstStart(shape, batch) < shape.tokens) {
                     if (out != local) {
                       std::copy_n(local, state_elements, out);
                     }
                     return;
                   }
                   const AttentionHead<T> head(shape, head_index, scratch.Take(sizes.tables));
                   const double decay = head.Decay(shape.tokens);
                   if (!head.rotary()) {
                     DecayState(shape.key_size, shape.value_size, decay, in, shape.value_size,
                                local, out, shape.value_size);
                     return;
                   }
                   T* const moved = scratch.Take(sizes.state);
                   const Turn turn = Turn::Of(shape.theta + head_index * shape.key_size,
                                              shape.key_size, shape.tokens);
                   const T* const no_addend = nullptr;
                   head.Move(back ? turn.Reversed() : turn, decay, in, shape.value_size, no_addend,
                             moved, sizes.value_stride);
                   DecayState(2 * shape.key_size, shape.value_size, 1.0, moved, sizes.value_stride,
                              local, out, shape.value_size);
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
