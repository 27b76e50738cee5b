// What linear attention needs to know of one (batch, head) pair: its decay powers, its rotary
// tables, and where its rows lie.
#pragma once

#include <cstdint>

#include "kernels/cpu/rotary.h"
#include "kernels/linear_attention.h"

namespace lasp::kernels::cpu {

// Rows of one head: [tokens, width].
template <typename T>
struct Rows {
  T* data = nullptr;
  int64_t stride = 0;

  T* At(int64_t token) const { return data + token * stride; }
};

template <typename T>
Rows<T> RowsOf(const HeadsView<T>& view, int64_t batch, int64_t head) {
  return {view.data + batch * view.batch_stride + head * view.head_stride, view.token_stride};
}

template <typename T>
class AttentionHead {
 public:
  // `tables` has TableElements(shape) elements and must outlive this object.
  AttentionHead(const LinearAttentionShape& shape, int64_t head, T* tables);

  static int64_t TableElements(const LinearAttentionShape& shape);

  bool rotary() const { return theta_ != nullptr; }

  // lambda^tokens
  double Decay(int64_t tokens) const;

  // lambda^{i+1} for i in [0, 64): the weights of a block's queries against the state before it.
  const T* QueryScale() const { return powers_ + 1; }

  // lambda^{length-1-j} for j in [0, length), then zeros: the weights of a block's keys in the
  // state after it, and what MaskDecay wants.
  const T* KeyScale(int64_t length) const { return mask_ + (kLinearAttentionBlock - length); }

  // The rows of a block as a tile of width StateRows, rotated where the layer has LRPE.
  void LoadKeys(int64_t length, Rows<const T> source, int64_t start, T* tile) const;

  // The inverse, for gradients.
  void StoreKeys(int64_t length, const T* tile, bool accumulate, Rows<T> target,
                 int64_t start) const;

  // out = decay * in + addend, its origin moved by `turn` where the layer has LRPE. `addend` has
  // out's stride, and may be null; `out` may be either of the inputs. Strides are in elements.
  void Move(const Turn& turn, double decay, const T* in, int64_t in_stride, const T* addend, T* out,
            int64_t out_stride) const;

  // The turn over a block of this slice (empty without LRPE), ahead and back.
  const Turn& BlockTurn(int64_t length) const {
    return length == kLinearAttentionBlock ? full_turn_ : last_turn_;
  }

  const Turn& BlockTurnBack(int64_t length) const {
    return length == kLinearAttentionBlock ? full_turn_back_ : last_turn_back_;
  }

  // AddThetaRows of rotary.h on a block's rows.
  void AddTheta(int64_t length, Rows<const T> x, int64_t start, const T* gradient_tile,
                double weight_first, double weight_step, double* sum) const;

 private:
  int64_t key_size_;
  int64_t value_size_;
  double slope_;
  const double* theta_;  // of this head, or null
  const T* cosine_;      // [64, key_size]
  const T* sine_;
  Turn full_turn_;
  Turn full_turn_back_;
  Turn last_turn_;
  Turn last_turn_back_;
  T powers_[kLinearAttentionBlock + 1];
  T mask_[2 * kLinearAttentionBlock];
};

}  // namespace lasp::kernels::cpu
