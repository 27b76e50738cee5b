#include "kernels/cuda/gated_rms_norm.h"
#include "kernels/cuda/norm_rows.cuh"

namespace lasp::kernels::cuda {

cudaError_t GatedRmsNormForward(const GatedRmsNormForwardArgs<Bf16, float>& args,
                                cudaStream_t stream) {
  const NormForward norm = {.rows = args.rows,
                            .width = static_cast<int>(args.width),
                            .epsilon = static_cast<float>(args.epsilon),
                            .input = args.input,
                            .addend = nullptr,
                            .gate = args.gate,
                            .gate_stride = args.gate_stride,
                            .sum = nullptr,
                            .output = args.output,
                            .inverse_rms = args.inverse_rms};
  const bool aligned = Aligned16(args.input, args.width) &&
                       Aligned16(args.gate, args.gate_stride) && Aligned16(args.output, args.width);
  return LaunchNorm(args.rows, norm.width, aligned, LaunchNormForward<true>{norm, stream});
}

cudaError_t GatedRmsNormBackward(const GatedRmsNormBackwardArgs<Bf16, float>& args,
                                 cudaStream_t stream) {
  const NormBackward norm = {.rows = args.rows,
                             .width = static_cast<int>(args.width),
                             .input = args.input,
                             .inverse_rms = args.inverse_rms,
                             .output_gradient = args.output_gradient,
                             .addend = nullptr,
                             .gate = args.gate,
                             .gate_stride = args.gate_stride,
                             .gate_gradient = args.gate_gradient,
                             .gate_gradient_stride = args.gate_gradient_stride,
                             .input_gradient = args.input_gradient};
  const bool aligned = Aligned16(args.input, args.width) &&
                       Aligned16(args.output_gradient, args.width) &&
                       Aligned16(args.gate, args.gate_stride) &&
                       Aligned16(args.gate_gradient, args.gate_gradient_stride) &&
                       Aligned16(args.input_gradient, args.width);
  return LaunchNorm(args.rows, norm.width, aligned, LaunchNormBackward<true>{norm, stream});
}

}  // namespace lasp::kernels::cuda
