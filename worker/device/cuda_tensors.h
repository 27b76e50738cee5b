// Tensors of a GPU as the kernels take them.
#pragma once

#include <cstdint>

#include "kernels/cuda/bfloat16.h"
#include "kernels/cuda/linear_attention.h"
#include "worker/device/backend.h"

namespace lasp::worker::cuda_tensors {

using kernels::cuda::Bf16;

template <typename T = Bf16>
const T* In(Tensor tensor) {
  return static_cast<const T*>(tensor.data);
}

template <typename T = Bf16>
T* Out(Tensor tensor) {
  return static_cast<T*>(tensor.data);
}

inline kernels::cuda::LinearAttentionProblem ProblemOf(const AttentionShape& shape) {
  return {.shape = {.batch = shape.batch,
                    .tokens = shape.tokens,
                    .heads = shape.heads,
                    .key_size = shape.head_size,
                    .value_size = shape.head_size,
                    .slopes = In<double>(shape.slopes),
                    .theta = shape.lrpe ? In<double>(shape.theta) : nullptr},
          .document_marks = In<uint64_t>(shape.document_marks)};
}

inline kernels::HeadsView<const Bf16> HeadsIn(const AttentionShape& shape, Tensor tensor) {
  return {In(tensor), shape.tokens * tensor.row_stride, tensor.row_stride, shape.head_size};
}

inline kernels::HeadsView<Bf16> HeadsOut(const AttentionShape& shape, Tensor tensor) {
  return {Out(tensor), shape.tokens * tensor.row_stride, tensor.row_stride, shape.head_size};
}

}  // namespace lasp::worker::cuda_tensors
