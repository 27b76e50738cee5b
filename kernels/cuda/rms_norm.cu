#include "kernels/cuda/norm_rows.cuh"
#include "kernels/cuda/rms_norm.h"

namespace lasp::kernels::cuda {

cudaError_t RmsNormForward(const RmsNormForwardArgs<Bf16, float>& args, cudaStream_t stream) {
  const NormForward norm = {.rows = args.rows,
                            .width = static_cast<int>(args.width),
                            .epsilon = static_cast<float>(args.epsilon),
                            .input = args.input,
                            .addend = args.addend,
                            .gate = nullptr,
                            .gate_stride = 0,
                            .sum = args.sum,
                            .output = args.output,
                            .inverse_rms = args.inverse_rms};
  const bool aligned = Aligned16(args.input, args.width) && Aligned16(args.addend, args.width) &&
                       Aligned16(args.sum, args.width) && Aligned16(args.output, args.width);
  return LaunchNorm(args.rows, norm.width, aligned, LaunchNormForward<false>{norm, stream});
}

cudaError_t RmsNormBackward(const RmsNormBackwardArgs<Bf16, float>& args, cudaStream_t stream) {
  const NormBackward norm = {.rows = args.rows,
                             .width = static_cast<int>(args.width),
                             .input = args.input,
                             .inverse_rms = args.inverse_rms,
                             .output_gradient = args.output_gradient,
                             .addend = args.addend,
                             .gate = nullptr,
                             .gate_stride = 0,
                             .gate_gradient = nullptr,
                             .gate_gradient_stride = 0,
                             .input_gradient = args.input_gradient};
  const bool aligned =
      Aligned16(args.input, args.width) && Aligned16(args.output_gradient, args.width) &&
      Aligned16(args.addend, args.width) && Aligned16(args.input_gradient, args.width);
  return LaunchNorm(args.rows, norm.width, aligned, LaunchNormBackward<false>{norm, stream});
}

}  // namespace lasp::kernels::cuda
