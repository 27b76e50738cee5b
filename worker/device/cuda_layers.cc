#include "worker/device/cuda_layers.h"

#include <algorithm>

#include "kernels/cuda/cross_entropy.h"
#include "kernels/cuda/embedding.h"
#include "kernels/cuda/gated_rms_norm.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/glu.h"
#include "kernels/cuda/rms_norm.h"
#include "kernels/cuda/silu.h"
#include "worker/device/cuda_tensors.h"

namespace lasp::worker {

namespace cuda = ::lasp::kernels::cuda;
using cuda_tensors::In;
using cuda_tensors::Out;

void CudaLayers::Gemm(bool transpose_a, Tensor a, bool transpose_b, Tensor b, double beta,
                      Tensor c) {
  const auto alignment = [](Tensor tensor) {
    return cuda::RowAlignment(tensor.data, tensor.row_stride * SizeOf(tensor.dtype));
  };
  const cuda::GemmShape shape = {.transpose_a = transpose_a,
                                 .transpose_b = transpose_b,
                                 .m = c.rows,
                                 .n = c.columns,
                                 .k = transpose_a ? a.rows : a.columns,
                                 .a_stride = a.row_stride,
                                 .b_stride = b.row_stride,
                                 .c_stride = c.row_stride,
                                 .fp32_output = c.dtype == DType::kFloat32,
                                 .adds = beta != 0,
                                 .alignment = std::min({alignment(a), alignment(b), alignment(c)})};
  context().Check(context().gemm().Run(
      shape, {.a = In(a), .b = In(b), .beta = static_cast<float>(beta), .c = c.data},
      context().workspace()));
}

void CudaLayers::EmbeddingForward(double scale, Tensor ids, Tensor table, Tensor output) {
  context().Check(cuda::EmbeddingForward({.tokens = output.rows,
                                          .hidden_size = output.columns,
                                          .scale = scale,
                                          .ids = In<int32_t>(ids),
                                          .embedding = In(table),
                                          .output = Out(output)},
                                         context().stream()),
                  "the embedding");
}

void CudaLayers::EmbeddingBackward(double scale, Tensor ids, Tensor output_gradient,
                                   Tensor table_gradient) {
  context().Check(
      cuda::EmbeddingBackward({.tokens = output_gradient.rows,
                               .hidden_size = output_gradient.columns,
                               .scale = scale,
                               .ids = In<int32_t>(ids),
                               .output_gradient = In(output_gradient),
                               .embedding_gradient = Out<float>(table_gradient)},
                              table_gradient.rows, context().workspace(), context().stream()),
      "the gradient of the embedding");
}

void CudaLayers::RmsNormForward(Tensor input, Tensor addend, Tensor sum, Tensor output,
                                Tensor inverse_rms) {
  context().Check(cuda::RmsNormForward({.rows = input.rows,
                                        .width = input.columns,
                                        .input = In(input),
                                        .addend = In(addend),
                                        .sum = Out(sum),
                                        .output = Out(output),
                                        .inverse_rms = Out<float>(inverse_rms)},
                                       context().stream()),
                  "a norm");
}

void CudaLayers::RmsNormBackward(Tensor input, Tensor inverse_rms, Tensor output_gradient,
                                 Tensor addend, Tensor input_gradient) {
  context().Check(cuda::RmsNormBackward({.rows = input.rows,
                                         .width = input.columns,
                                         .input = In(input),
                                         .inverse_rms = In<float>(inverse_rms),
                                         .output_gradient = In(output_gradient),
                                         .addend = In(addend),
                                         .input_gradient = Out(input_gradient)},
                                        context().stream()),
                  "the gradient of a norm");
}

void CudaLayers::GatedRmsNormForward(Tensor input, Tensor gate, Tensor output, Tensor inverse_rms) {
  context().Check(cuda::GatedRmsNormForward({.rows = input.rows,
                                             .width = input.columns,
                                             .input = In(input),
                                             .gate = In(gate),
                                             .gate_stride = gate.row_stride,
                                             .output = Out(output),
                                             .inverse_rms = Out<float>(inverse_rms)},
                                            context().stream()),
                  "a gated norm");
}

void CudaLayers::GatedRmsNormBackward(Tensor input, Tensor gate, Tensor inverse_rms,
                                      Tensor output_gradient, Tensor input_gradient,
                                      Tensor gate_gradient) {
  context().Check(cuda::GatedRmsNormBackward({.rows = input.rows,
                                              .width = input.columns,
                                              .input = In(input),
                                              .gate = In(gate),
                                              .gate_stride = gate.row_stride,
                                              .inverse_rms = In<float>(inverse_rms),
                                              .output_gradient = In(output_gradient),
                                              .input_gradient = Out(input_gradient),
                                              .gate_gradient = Out(gate_gradient),
                                              .gate_gradient_stride = gate_gradient.row_stride},
                                             context().stream()),
                  "the gradient of a gated norm");
}

void CudaLayers::SiluForward(Tensor input, Tensor output) {
  context().Check(cuda::SiluForward({.rows = input.rows,
                                     .width = input.columns,
                                     .input = In(input),
                                     .input_stride = input.row_stride,
                                     .output = Out(output),
                                     .output_stride = output.row_stride},
                                    context().stream()),
                  "silu");
}

void CudaLayers::SiluBackward(Tensor input, Tensor output_gradient, Tensor input_gradient) {
  context().Check(cuda::SiluBackward({.rows = input.rows,
                                      .width = input.columns,
                                      .input = In(input),
                                      .input_stride = input.row_stride,
                                      .output_gradient = In(output_gradient),
                                      .output_gradient_stride = output_gradient.row_stride,
                                      .input_gradient = Out(input_gradient),
                                      .input_gradient_stride = input_gradient.row_stride},
                                     context().stream()),
                  "the gradient of silu");
}

void CudaLayers::GluForward(Tensor a, Tensor b, Tensor output) {
  context().Check(cuda::GluForward({.rows = a.rows,
                                    .width = a.columns,
                                    .a = In(a),
                                    .a_stride = a.row_stride,
                                    .b = In(b),
                                    .b_stride = b.row_stride,
                                    .output = Out(output)},
                                   context().stream()),
                  "a gated product");
}

void CudaLayers::GluBackward(Tensor a, Tensor b, Tensor output_gradient, Tensor a_gradient,
                             Tensor b_gradient, Tensor product) {
  context().Check(cuda::GluBackward({.rows = a.rows,
                                     .width = a.columns,
                                     .a = In(a),
                                     .a_stride = a.row_stride,
                                     .b = In(b),
                                     .b_stride = b.row_stride,
                                     .output_gradient = In(output_gradient),
                                     .a_gradient = Out(a_gradient),
                                     .a_gradient_stride = a_gradient.row_stride,
                                     .b_gradient = Out(b_gradient),
                                     .b_gradient_stride = b_gradient.row_stride,
                                     .product = Out(product)},
                                    context().stream()),
                  "the gradient of a gated product");
}

void CudaLayers::CrossEntropy(Tensor logits, Tensor labels, double gradient_scale, Tensor gradient,
                              Tensor loss_sum) {
  context().Check(cuda::CrossEntropy({.rows = logits.rows,
                                      .vocabulary = logits.columns,
                                      .logits = In(logits),
                                      .logits_stride = logits.row_stride,
                                      .labels = In<int32_t>(labels),
                                      .gradient_scale = gradient_scale,
                                      .gradient = Out(gradient),
                                      .gradient_stride = gradient.row_stride,
                                      .loss_sum = Out<double>(loss_sum)},
                                     context().workspace(), context().stream()),
                  "the loss");
}

}  // namespace lasp::worker
