#include "kernels/split_gated_rms_norm.h"

#include <cmath>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/row_sums.h"
#include "kernels/cpu/simd.h"

namespace lasp::kernels::cpu {

template <typename T>
void SplitNormSums(const SplitNormSumsArgs<T>& args) {
  const int64_t width = args.width;
  ParallelRanges(args.rows, 3 * width, [&](int64_t begin, int64_t end) {
    RunVectorised([&]() LASP_ALWAYS_INLINE {
      for (int64_t row = begin; row < end; ++row) {
        const T* const x = args.input + row * width;
        if (args.output_gradient == nullptr) {
          args.sums[row] = Dot(width, x, x);
          continue;
        }
        const T* const gradient = args.output_gradient + row * width;
        const T* const gate = args.gate + row * args.gate_stride;
        T sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < width; ++c) {
          sum += x[c] * (gradient[c] * gate[c]);
        }
        args.sums[row] = sum;
      }
    });
  });
}

template <typename T>
void SplitGatedRmsNormForward(const SplitGatedRmsNormForwardArgs<T>& args) {
  const int64_t width = args.width;
  ParallelRanges(args.rows, 2 * width, [&](int64_t begin, int64_t end) {
    RunVectorised([&]() LASP_ALWAYS_INLINE {
      for (int64_t row = begin; row < end; ++row) {
        const T* const x = args.input + row * width;
        const T* const gate = args.gate + row * args.gate_stride;
        T* const output = args.output + row * width;
        const double mean =
            static_cast<double>(args.inverse_rms[row]) / static_cast<double>(args.whole_width);
        const auto r = static_cast<T>(1.0 / std::sqrt(mean + args.epsilon));
        args.inverse_rms[row] = r;
#pragma omp simd
        for (int64_t c = 0; c < width; ++c) {
          output[c] = gate[c] * (x[c] * r);
        }
      }
    });
  });
}

template <typename T>
void SplitGatedRmsNormBackward(const SplitGatedRmsNormBackwardArgs<T>& args) {
  const int64_t width = args.width;
  ParallelRanges(args.rows, 4 * width, [&](int64_t begin, int64_t end) {
    RunVectorised([&]() LASP_ALWAYS_INLINE {
      for (int64_t row = begin; row < end; ++row) {
        const T* const x = args.input + row * width;
        const T* const gate = args.gate + row * args.gate_stride;
        const T* const gradient = args.output_gradient + row * width;
        T* const input_gradient = args.input_gradient + row * width;
        T* const gate_gradient = args.gate_gradient + row * args.gate_gradient_stride;
        const T r = args.inverse_rms[row];
        const T along = r * r * r * args.sums[row] / static_cast<T>(args.whole_width);
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

template void SplitNormSums<float>(const SplitNormSumsArgs<float>&);
template void SplitNormSums<double>(const SplitNormSumsArgs<double>&);
template void SplitGatedRmsNormForward<float>(const SplitGatedRmsNormForwardArgs<float>&);
template void SplitGatedRmsNormForward<double>(const SplitGatedRmsNormForwardArgs<double>&);
template void SplitGatedRmsNormBackward<float>(const SplitGatedRmsNormBackwardArgs<float>&);
template void SplitGatedRmsNormBackward<double>(const SplitGatedRmsNormBackwardArgs<double>&);

}  // namespace lasp::kernels::cpu
