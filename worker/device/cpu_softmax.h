// The CPU behind the device seam: softmax attention.
#pragma once

#include <cstdint>

#include "kernels/rotary_positions.h"
#include "kernels/softmax_attention.h"
#include "worker/device/backend.h"
#include "worker/device/cpu_tensors.h"
#include "worker/device/softmax_ops.h"

namespace lasp::worker {

template <typename T>
class CpuSoftmax final : public SoftmaxOps {
 public:
  void Turn(const AttentionShape& shape, double base, bool inverse, Tensor x) override {
    kernels::cpu::TurnByPositions<T>({.sequences = shape.batch,
                                      .tokens = shape.tokens,
                                      .heads = x.columns / shape.head_size,
                                      .head_size = shape.head_size,
                                      .first_position = shape.first_position,
                                      .base = base,
                                      .inverse = inverse,
                                      .x = cpu_tensors::Out<T>(x),
                                      .token_stride = x.row_stride});
  }

  void Output(const AttentionShape& shape, const SoftmaxForward& tensors) override {
    kernels::cpu::SoftmaxAttentionOutput<T>({.shape = ShapeOf(shape, tensors.keys, tensors.offset),
                                             .q = View<const T>(shape, tensors.q),
                                             .k = View<const T>(shape, tensors.k),
                                             .v = View<const T>(shape, tensors.v),
                                             .merges = tensors.merges,
                                             .output = View<T>(shape, tensors.output),
                                             .log_sums = cpu_tensors::Out<T>(tensors.log_sums),
                                             .documents = DocumentsOf(shape, tensors.first_key)});
  }

  void Gradients(const AttentionShape& shape, const SoftmaxBackward& tensors) override {
    kernels::cpu::SoftmaxAttentionGradients<T>(
        {.shape = ShapeOf(shape, tensors.keys, tensors.offset),
         .q = View<const T>(shape, tensors.q),
         .k = View<const T>(shape, tensors.k),
         .v = View<const T>(shape, tensors.v),
         .output = View<const T>(shape, tensors.output),
         .log_sums = cpu_tensors::In<T>(tensors.log_sums),
         .output_gradient = View<const T>(shape, tensors.output_gradient),
         .adds = tensors.adds,
         .q_gradient = View<T>(shape, tensors.q_gradient),
         .adds_to_keys = tensors.adds_to_keys,
         .k_gradient = View<T>(shape, tensors.k_gradient),
         .v_gradient = View<T>(shape, tensors.v_gradient),
         .documents = DocumentsOf(shape, tensors.first_key)});
  }

 private:
  static kernels::SoftmaxAttentionShape ShapeOf(const AttentionShape& shape, int64_t keys,
                                                int64_t offset) {
    return {.batch = shape.batch,
            .queries = shape.tokens,
            .keys = keys,
            .heads = shape.heads,
            .kv_heads = shape.kv_heads,
            .head_size = shape.head_size,
            .offset = offset};
  }

  static kernels::SoftmaxDocuments DocumentsOf(const AttentionShape& shape, int64_t first_key) {
    return {.marks = static_cast<const uint64_t*>(shape.document_marks.data),
            .words = shape.document_marks.columns / 2,
            .first_key = first_key};
  }

  // Of as many rows a sequence as the tensor has.
  template <typename U>
  static kernels::HeadsView<U> View(const AttentionShape& shape, Tensor tensor) {
    return {static_cast<U*>(tensor.data), tensor.rows / shape.batch * tensor.row_stride,
            tensor.row_stride, shape.head_size};
  }
};

}  // namespace lasp::worker
