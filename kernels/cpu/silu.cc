#include "kernels/silu.h"

#include "kernels/cpu/exp.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/simd.h"

namespace lasp::kernels::cpu {
namespace {

template <typename T>
LASP_ALWAYS_INLINE inline T Sigmoid(T z) {
  return T{1} / (T{1} + Exp(-z));
}

}  // namespace

template <typename T>
void SiluForward(const SiluForwardArgs<T>& args) {
  ParallelRanges(args.rows, 8 * args.width, [&](int64_t begin, int64_t end) {
    RunVectorised([&]() LASP_ALWAYS_INLINE {
      for (int64_t row = begin; row < end; ++row) {
        const T* const input = args.input + row * args.input_stride;
        T* const output = args.output + row * args.output_stride;
#pragma omp simd
        for (int64_t c = 0; c < args.width; ++c) {
          output[c] = input[c] * Sigmoid(input[c]);
        }
      }
    });
  });
}

template <typename T>
void SiluBackward(const SiluBackwardArgs<T>& args) {
  ParallelRanges(args.rows, 8 * args.width, [&](int64_t begin, int64_t end) {
    RunVectorised([&]() LASP_ALWAYS_INLINE {
      for (int64_t row = begin; row < end; ++row) {
        const T* const input = args.input + row * args.input_stride;
        const T* const gradient = args.output_gradient + row * args.output_gradient_stride;
        T* const output = args.input_gradient + row * args.input_gradient_stride;
#pragma omp simd
        for (int64_t c = 0; c < args.width; ++c) {
          const T sigmoid = Sigmoid(input[c]);
          output[c] = gradient[c] * (sigmoid * (T{1} + input[c] * (T{1} - sigmoid)));
        }
      }
    });
  });
}

template void SiluForward<float>(const SiluForwardArgs<float>&);
template void SiluForward<double>(const SiluForwardArgs<double>&);
template void SiluBackward<float>(const SiluBackwardArgs<float>&);
template void SiluBackward<double>(const SiluBackwardArgs<double>&);

}  // namespace lasp::kernels::cpu
