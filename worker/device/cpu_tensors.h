// Tensors of the CPU as the kernels take them.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/linear_attention.h"
#include "worker/device/backend.h"

namespace lasp::worker::cpu_tensors {

template <typename T>
const T* In(Tensor tensor) {
  return static_cast<const T*>(tensor.data);
}

template <typename T>
T* Out(Tensor tensor) {
  return static_cast<T*>(tensor.data);
}

inline const int32_t* Ids(Tensor tensor) { return static_cast<const int32_t*>(tensor.data); }

inline kernels::LinearAttentionShape KernelShape(const AttentionShape& shape) {
  return {.batch = shape.batch,
          .tokens = shape.tokens,
          .heads = shape.heads,
          .key_size = shape.head_size,
          .value_size = shape.head_size,
          .slopes = static_cast<const double*>(shape.slopes.data),
          .theta = shape.lrpe ? static_cast<const double*>(shape.theta.data) : nullptr,
          .document_marks = static_cast<const uint64_t*>(shape.document_marks.data)};
}

template <typename T>
kernels::HeadsView<const T> HeadsIn(const AttentionShape& shape, Tensor tensor) {
  return {In<T>(tensor), shape.tokens * tensor.row_stride, tensor.row_stride, shape.head_size};
}

template <typename T>
kernels::HeadsView<T> HeadsOut(const AttentionShape& shape, Tensor tensor) {
  return {Out<T>(tensor), shape.tokens * tensor.row_stride, tensor.row_stride, shape.head_size};
}

inline void CopyRows(Tensor source, Tensor destination) {
  const auto bytes = static_cast<size_t>(source.columns * SizeOf(source.dtype));
  // An empty tensor may have no memory, which memcpy does not allow even for no bytes.
  if (source.empty() || destination.empty()) return;
  for (int64_t row = 0; row < source.rows; ++row) {
    std::memcpy(destination.Rows(row, 1).data, source.Rows(row, 1).data, bytes);
  }
}

}  // namespace lasp::worker::cpu_tensors
