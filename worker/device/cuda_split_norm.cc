#include "worker/device/cuda_split_norm.h"

#include "kernels/cuda/split_gated_rms_norm.h"
#include "worker/device/cuda_tensors.h"

namespace lasp::worker {

namespace cuda = ::lasp::kernels::cuda;
using cuda_tensors::In;
using cuda_tensors::Out;

void CudaSplitNorm::SumsOfSquares(Tensor input, Tensor sums) {
  context_.Check(cuda::SplitNormSums({.rows = input.rows,
                                      .width = input.columns,
                                      .input = In(input),
                                      .sums = Out<float>(sums)},
                                     context_.stream()),
                 "the sums of a split norm");
}

void CudaSplitNorm::Forward(int64_t whole_width, Tensor input, Tensor gate, Tensor output,
                            Tensor inverse_rms) {
  context_.Check(cuda::SplitGatedRmsNormForward({.rows = input.rows,
                                                 .width = input.columns,
                                                 .whole_width = whole_width,
                                                 .input = In(input),
                                                 .gate = In(gate),
                                                 .gate_stride = gate.row_stride,
                                                 .output = Out(output),
                                                 .inverse_rms = Out<float>(inverse_rms)},
                                                context_.stream()),
                 "a split norm");
}

void CudaSplitNorm::SumsOfProducts(Tensor input, Tensor gate, Tensor output_gradient, Tensor sums) {
  context_.Check(cuda::SplitNormSums({.rows = input.rows,
                                      .width = input.columns,
                                      .input = In(input),
                                      .output_gradient = In(output_gradient),
                                      .gate = In(gate),
                                      .gate_stride = gate.row_stride,
                                      .sums = Out<float>(sums)},
                                     context_.stream()),
                 "the sums of a split norm's gradient");
}

void CudaSplitNorm::Backward(int64_t whole_width, Tensor input, Tensor gate, Tensor inverse_rms,
                             Tensor sums, Tensor output_gradient, Tensor input_gradient,
                             Tensor gate_gradient) {
  context_.Check(cuda::SplitGatedRmsNormBackward({.rows = input.rows,
                                                  .width = input.columns,
                                                  .whole_width = whole_width,
                                                  .input = In(input),
                                                  .gate = In(gate),
                                                  .gate_stride = gate.row_stride,
                                                  .inverse_rms = In<float>(inverse_rms),
                                                  .sums = In<float>(sums),
                                                  .output_gradient = In(output_gradient),
                                                  .input_gradient = Out(input_gradient),
                                                  .gate_gradient = Out(gate_gradient),
                                                  .gate_gradient_stride = gate_gradient.row_stride},
                                                 context_.stream()),
                 "the gradient of a split norm");
}

}  // namespace lasp::worker
