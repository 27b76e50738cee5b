#include "kernels/gated_rms_norm.h"

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/row_sums.h"
#include "kernels/cpu/simd.h"

namespace lasp::kernels::cpu {

template <typename T>
void GatedRmsNormForward(const GatedRmsNormForwardArgs<T>& args) {
  const int64_t width = args.width;
  ParallelRanges(args.rows, 4 * width, [&](int64_t begin, int64_t end) {
    RunVectorised([&]() LASP_ALWAYS_INLINE {
      for (int64_t row = begin; row < end; ++row) {
        const T* const x = args.input + row * width;
        const T* const gate = args.gate + row * args.gate_stride;
        T* const output = args.output + row * width;
        const T inverse_rms = InverseRms(width, args.epsilon, x);
        if (args.inverse_rms != nullptr) {
          args.inverse_rms[row] = inverse_rms;
        }
#pragma omp simd
        for (int64_t c = 0; c < width; ++c) {
          output[c] = gate[c] * (x[c] * inverse_rms);
        }
      }
    });
  });
}

template <typename T>
void GatedRmsNormBackward(const GatedRmsNormBackwardArgs<T>& args) {
  const int64_t width = args.width;
  ParallelRanges(args.rows, 6 * width, [&](int64_t begin, int64_t end) {
    RunVectorised([&]() LASP_ALWAYS_INLINE {
      for (int64_t row = begin; row < end; ++row) {
        const T* const x = args.input + row * width;
        const T* const gate = args.gate + row * args.gate_stride;
        const T* const gradient = args.output_gradient + row * width;
        T* const input_gradient = args.input_gradient + row * width;
        T* const gate_gradient = args.gate_gradient + row * args.gate_gradient_stride;
        const T r = args.inverse_rms[row];
        // With dn = dy (.) u the gradient of the norm: r (dn - x r mean(x r dn)).
        T dot = 0;
#pragma omp simd reduction(+ : dot)
        for (int64_t c = 0; c < width; ++c) {
          dot += x[c] * (gradient[c] * gate[c]);
        }
        const T along = r * r * r * dot / static_cast<T>(width);
#pragma omp simd
        for (int64_t c = 0; c < width; ++c) {
          const T dy = gradient[c];
          const T u = gate[c];
          gate_gradient[c] = dy * (x[c] * r);
          input_gradient[c] = r * (dy * u) - along * x[c];
        }
      }
    });
  });
}

template void GatedRmsNormForward<float>(const GatedRmsNormForwardArgs<float>&);
template void GatedRmsNormForward<double>(const GatedRmsNormForwardArgs<double>&);
template void GatedRmsNormBackward<float>(const GatedRmsNormBackwardArgs<float>&);
template void GatedRmsNormBackward<double>(const GatedRmsNormBackwardArgs<double>&);

}  // namespace lasp::kernels::cpu
