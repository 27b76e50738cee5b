#include "kernels/rms_norm.h"

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/row_sums.h"
#include "kernels/cpu/simd.h"

namespace lasp::kernels::cpu {

template <typename T>
void RmsNormForward(const RmsNormForwardArgs<T>& args) {
  const int64_t width = args.width;
  ParallelRanges(args.rows, 4 * width, [&](int64_t begin, int64_t end) {
    RunVectorised([&]() LASP_ALWAYS_INLINE {
      for (int64_t row = begin; row < end; ++row) {
        const T* x = args.input + row * width;
        if (args.addend != nullptr) {
          const T* const addend = args.addend + row * width;
          T* const sum = args.sum + row * width;
#pragma omp simd
          for (int64_t c = 0; c < width; ++c) {
            sum[c] = x[c] + addend[c];
          }
          x = sum;
        }
        const T inverse_rms = InverseRms(width, args.epsilon, x);
        if (args.inverse_rms != nullptr) {
          args.inverse_rms[row] = inverse_rms;
        }
        if (args.output != nullptr) {
          T* const output = args.output + row * width;
#pragma omp simd
          for (int64_t c = 0; c < width; ++c) {
            output[c] = x[c] * inverse_rms;
          }
        }
      }
    });
  });
}

template <typename T>
void RmsNormBackward(const RmsNormBackwardArgs<T>& args) {
  const int64_t width = args.width;
  ParallelRanges(args.rows, 6 * width, [&](int64_t begin, int64_t end) {
    RunVectorised([&]() LASP_ALWAYS_INLINE {
      for (int64_t row = begin; row < end; ++row) {
        const T* const x = args.input + row * width;
        const T* const gradient = args.output_gradient + row * width;
        T* const out = args.input_gradient + row * width;
        const T r = args.inverse_rms[row];
        // r (dy - x r mean(x r dy))
        const T along = r * r * r * Dot(width, x, gradient) / static_cast<T>(width);
        if (args.addend != nullptr) {
          const T* const addend = args.addend + row * width;
#pragma omp simd
          for (int64_t c = 0; c < width; ++c) {
            out[c] = addend[c] + (r * gradient[c] - along * x[c]);
          }
        } else {
#pragma omp simd
          for (int64_t c = 0; c < width; ++c) {
            out[c] = r * gradient[c] - along * x[c];
          }
        }
      }
    });
  });
}

template void RmsNormForward<float>(const RmsNormForwardArgs<float>&);
template void RmsNormForward<double>(const RmsNormForwardArgs<double>&);
template void RmsNormBackward<float>(const RmsNormBackwardArgs<float>&);
template void RmsNormBackward<double>(const RmsNormBackwardArgs<double>&);

}  // namespace lasp::kernels::cpu
