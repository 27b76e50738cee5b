// The CPU behind the device seam: products, embedding, norms, activations, the loss.
#pragma once

#include <cstdint>

#include "kernels/cross_entropy.h"
#include "kernels/embedding.h"
#include "kernels/gated_rms_norm.h"
#include "kernels/gemm.h"
#include "kernels/glu.h"
#include "kernels/rms_norm.h"
#include "kernels/silu.h"
#include "worker/device/cpu_attention.h"
#include "worker/device/cpu_split_norm.h"
#include "worker/device/cpu_tensors.h"

namespace lasp::worker {

template <typename T>
class CpuLayers : public CpuAttention<T> {
 public:
  void Gemm(bool transpose_a, Tensor a, bool transpose_b, Tensor b, double beta,
            Tensor c) override {
    kernels::cpu::Gemm<T>({.transpose_a = transpose_a,
                           .transpose_b = transpose_b,
                           .m = c.rows,
                           .n = c.columns,
                           .k = transpose_a ? a.rows : a.columns,
                           .alpha = 1,
                           .a = cpu_tensors::In<T>(a),
                           .a_stride = a.row_stride,
                           .b = cpu_tensors::In<T>(b),
                           .b_stride = b.row_stride,
                           .beta = static_cast<T>(beta),
                           .c = cpu_tensors::Out<T>(c),
                           .c_stride = c.row_stride});
  }

  void EmbeddingForward(double scale, Tensor ids, Tensor table, Tensor output) override {
    kernels::cpu::EmbeddingForward<T>({.tokens = output.rows,
                                       .hidden_size = output.columns,
                                       .scale = scale,
                                       .ids = cpu_tensors::Ids(ids),
                                       .embedding = cpu_tensors::In<T>(table),
                                       .output = cpu_tensors::Out<T>(output)});
  }

  void EmbeddingBackward(double scale, Tensor ids, Tensor output_gradient,
                         Tensor table_gradient) override {
    kernels::cpu::EmbeddingBackward<T>({.tokens = output_gradient.rows,
                                        .hidden_size = output_gradient.columns,
                                        .scale = scale,
                                        .ids = cpu_tensors::Ids(ids),
                                        .output_gradient = cpu_tensors::In<T>(output_gradient),
                                        .embedding_gradient = cpu_tensors::Out<T>(table_gradient)});
  }

  void RmsNormForward(Tensor input, Tensor addend, Tensor sum, Tensor output,
                      Tensor inverse_rms) override {
    kernels::cpu::RmsNormForward<T>({.rows = input.rows,
                                     .width = input.columns,
                                     .input = cpu_tensors::In<T>(input),
                                     .addend = cpu_tensors::In<T>(addend),
                                     .sum = cpu_tensors::Out<T>(sum),
                                     .output = cpu_tensors::Out<T>(output),
                                     .inverse_rms = cpu_tensors::Out<T>(inverse_rms)});
  }

  void RmsNormBackward(Tensor input, Tensor inverse_rms, Tensor output_gradient, Tensor addend,
                       Tensor input_gradient) override {
    kernels::cpu::RmsNormBackward<T>({.rows = input.rows,
                                      .width = input.columns,
                                      .input = cpu_tensors::In<T>(input),
                                      .inverse_rms = cpu_tensors::In<T>(inverse_rms),
                                      .output_gradient = cpu_tensors::In<T>(output_gradient),
                                      .addend = cpu_tensors::In<T>(addend),
                                      .input_gradient = cpu_tensors::Out<T>(input_gradient)});
  }

  void GatedRmsNormForward(Tensor input, Tensor gate, Tensor output, Tensor inverse_rms) override {
    kernels::cpu::GatedRmsNormForward<T>({.rows = input.rows,
                                          .width = input.columns,
                                          .input = cpu_tensors::In<T>(input),
                                          .gate = cpu_tensors::In<T>(gate),
                                          .gate_stride = gate.row_stride,
                                          .output = cpu_tensors::Out<T>(output),
                                          .inverse_rms = cpu_tensors::Out<T>(inverse_rms)});
  }

  void GatedRmsNormBackward(Tensor input, Tensor gate, Tensor inverse_rms, Tensor output_gradient,
                            Tensor input_gradient, Tensor gate_gradient) override {
    kernels::cpu::GatedRmsNormBackward<T>({.rows = input.rows,
                                           .width = input.columns,
                                           .input = cpu_tensors::In<T>(input),
                                           .gate = cpu_tensors::In<T>(gate),
                                           .gate_stride = gate.row_stride,
                                           .inverse_rms = cpu_tensors::In<T>(inverse_rms),
                                           .output_gradient = cpu_tensors::In<T>(output_gradient),
                                           .input_gradient = cpu_tensors::Out<T>(input_gradient),
                                           .gate_gradient = cpu_tensors::Out<T>(gate_gradient),
                                           .gate_gradient_stride = gate_gradient.row_stride});
  }

  void SiluForward(Tensor input, Tensor output) override {
    kernels::cpu::SiluForward<T>({.rows = input.rows,
                                  .width = input.columns,
                                  .input = cpu_tensors::In<T>(input),
                                  .input_stride = input.row_stride,
                                  .output = cpu_tensors::Out<T>(output),
                                  .output_stride = output.row_stride});
  }

  void SiluBackward(Tensor input, Tensor output_gradient, Tensor input_gradient) override {
    kernels::cpu::SiluBackward<T>({.rows = input.rows,
                                   .width = input.columns,
                                   .input = cpu_tensors::In<T>(input),
                                   .input_stride = input.row_stride,
                                   .output_gradient = cpu_tensors::In<T>(output_gradient),
                                   .output_gradient_stride = output_gradient.row_stride,
                                   .input_gradient = cpu_tensors::Out<T>(input_gradient),
                                   .input_gradient_stride = input_gradient.row_stride});
  }

  void GluForward(Tensor a, Tensor b, Tensor output) override {
    kernels::cpu::GluForward<T>({.rows = a.rows,
                                 .width = a.columns,
                                 .a = cpu_tensors::In<T>(a),
                                 .a_stride = a.row_stride,
                                 .b = cpu_tensors::In<T>(b),
                                 .b_stride = b.row_stride,
                                 .output = cpu_tensors::Out<T>(output)});
  }

  void GluBackward(Tensor a, Tensor b, Tensor output_gradient, Tensor a_gradient, Tensor b_gradient,
                   Tensor product) override {
    kernels::cpu::GluBackward<T>({.rows = a.rows,
                                  .width = a.columns,
                                  .a = cpu_tensors::In<T>(a),
                                  .a_stride = a.row_stride,
                                  .b = cpu_tensors::In<T>(b),
                                  .b_stride = b.row_stride,
                                  .output_gradient = cpu_tensors::In<T>(output_gradient),
                                  .a_gradient = cpu_tensors::Out<T>(a_gradient),
                                  .a_gradient_stride = a_gradient.row_stride,
                                  .b_gradient = cpu_tensors::Out<T>(b_gradient),
                                  .b_gradient_stride = b_gradient.row_stride,
                                  .product = cpu_tensors::Out<T>(product)});
  }

  void CrossEntropy(Tensor logits, Tensor labels, double gradient_scale, Tensor gradient,
                    Tensor loss_sum) override {
    kernels::cpu::CrossEntropy<T>({.rows = logits.rows,
                                   .vocabulary = logits.columns,
                                   .logits = cpu_tensors::In<T>(logits),
                                   .logits_stride = logits.row_stride,
                                   .labels = cpu_tensors::Ids(labels),
                                   .gradient_scale = gradient_scale,
                                   .gradient = cpu_tensors::Out<T>(gradient),
                                   .gradient_stride = gradient.row_stride,
                                   .loss_sum = static_cast<double*>(loss_sum.data)});
  }

  SplitNormOps* split_norm() override { return &split_norm_; }

 private:
  CpuSplitNorm<T> split_norm_;
};

}  // namespace lasp::worker
