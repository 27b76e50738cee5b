#include "kernels/elu_plus_one.h"

#include "kernels/cpu/exp.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/simd.h"

namespace lasp::kernels::cpu {
namespace {

// e^z without its growth for z > 0, where it is not wanted.
template <typename T>
LASP_ALWAYS_INLINE inline T ExpOfNegative(T z) {
  return Exp(z > T{0} ? T{0} : z);
}

}  // namespace

template <typename T>
void EluPlusOneForward(const EluPlusOneForwardArgs<T>& args) {
  ParallelRanges(args.rows, 8 * args.width, [&](int64_t begin, int64_t end) {
    RunVectorised([&]() LASP_ALWAYS_INLINE {
      for (int64_t row = begin; row < end; ++row) {
        const T* const input = args.input + row * args.input_stride;
        T* const output = args.output + row * args.output_stride;
#pragma omp simd
        for (int64_t c = 0; c < args.width; ++c) {
          const T z = input[c];
          const T small = ExpOfNegative(z);
          output[c] = z > T{0} ? z + T{1} : small;
        }
      }
    });
  });
}

template <typename T>
void EluPlusOneBackward(const EluPlusOneBackwardArgs<T>& args) {
  ParallelRanges(args.rows, 8 * args.width, [&](int64_t begin, int64_t end) {
    RunVectorised([&]() LASP_ALWAYS_INLINE {
      for (int64_t row = begin; row < end; ++row) {
        const T* const input = args.input + row * args.input_stride;
        const T* const gradient = args.output_gradient + row * args.output_gradient_stride;
        T* const output = args.input_gradient + row * args.input_gradient_stride;
#pragma omp simd
        for (int64_t c = 0; c < args.width; ++c) {
          output[c] = gradient[c] * ExpOfNegative(input[c]);
        }
      }
    });
  });
}

template void EluPlusOneForward<float>(const EluPlusOneForwardArgs<float>&);
template void EluPlusOneForward<double>(const EluPlusOneForwardArgs<double>&);
template void EluPlusOneBackward<float>(const EluPlusOneBackwardArgs<float>&);
template void EluPlusOneBackward<double>(const EluPlusOneBackwardArgs<double>&);

}  // namespace lasp::kernels::cpu
