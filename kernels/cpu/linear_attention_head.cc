#include "kernels/cpu/linear_attention_head.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/tile.h"

namespace lasp::kernels::cpu {

template <typename T>
AttentionHead<T>::AttentionHead(const LinearAttentionShape& shape, int64_t head, T* tables)
    : key_size_(shape.key_size),
      value_size_(shape.value_size),
      slope_(shape.slopes[head]),
      theta_(shape.theta == nullptr ? nullptr : shape.theta + head * shape.key_size),
      cosine_(tables),
      sine_(tables + kLinearAttentionBlock * shape.key_size) {
  constexpr int64_t kBlock = kLinearAttentionBlock;
  for (int64_t n = 0; n <= kBlock; ++n) {
    powers_[n] = static_cast<T>(Decay(n));
  }
  std::reverse_copy(powers_, powers_ + kBlock, mask_);
  std::fill(mask_ + kBlock, mask_ + 2 * kBlock, T{0});
  if (theta_ != nullptr) {
    RotaryTable(theta_, key_size_, kBlock, tables, tables + kBlock * key_size_);
    full_turn_ = Turn::Of(theta_, key_size_, kBlock);
    full_turn_back_ = full_turn_.Reversed();
    last_turn_ = Turn::Of(theta_, key_size_, shape.tokens % kBlock);
    last_turn_back_ = last_turn_.Reversed();
  }
}

template <typename T>
int64_t AttentionHead<T>::TableElements(const LinearAttentionShape& shape) {
  return shape.theta == nullptr ? 0 : 2 * kLinearAttentionBlock * shape.key_size;
}

template <typename T>
double AttentionHead<T>::Decay(int64_t tokens) const {
  return std::exp(-slope_ * static_cast<double>(tokens));
}

template <typename T>
void AttentionHead<T>::LoadKeys(int64_t length, Rows<const T> source, int64_t start,
                                T* tile) const {
  if (rotary()) {
    RotateRows(length, key_size_, cosine_, sine_, source.At(start), source.stride, tile);
  } else {
    LoadTile(length, key_size_, source.At(start), source.stride, tile);
  }
}

template <typename T>
void AttentionHead<T>::StoreKeys(int64_t length, const T* tile, bool accumulate, Rows<T> target,
                                 int64_t start) const {
  if (rotary()) {
    UnrotateRows(length, key_size_, cosine_, sine_, tile, accumulate, target.At(start),
                 target.stride);
  } else {
    StoreTile(length, key_size_, tile, accumulate, target.At(start), target.stride);
  }
}

template <typename T>
void AttentionHead<T>::Move(const Turn& turn, double decay, const T* in, int64_t in_stride,
                            const T* addend, T* out, int64_t out_stride) const {
  if (rotary()) {
    TurnState(key_size_, value_size_, turn, decay, in, in_stride, addend, out, out_stride);
  } else {
    DecayState(key_size_, value_size_, decay, in, in_stride, addend, out, out_stride);
  }
}

template <typename T>
void AttentionHead<T>::AddTheta(int64_t length, Rows<const T> x, int64_t start,
                                const T* gradient_tile, double weight_first, double weight_step,
                                double* sum) const {
  AddThetaRows(length, key_size_, cosine_, sine_, x.At(start), x.stride, gradient_tile,
               weight_first, weight_step, sum);
}

template class AttentionHead<float>;
template class AttentionHead<double>;

}  // namespace lasp::kernels::cpu
