#include "kernels/glu.h"

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/simd.h"

namespace lasp::kernels::cpu {

template <typename T>
void GluForward(const GluForwardArgs<T>& args) {
  ParallelRanges(args.rows, 3 * args.width, [&](int64_t begin, int64_t end) {
    RunVectorised([&]() LASP_ALWAYS_INLINE {
      for (int64_t row = begin; row < end; ++row) {
        const T* const a = args.a + row * args.a_stride;
        const T* const b = args.b + row * args.b_stride;
        T* const output = args.output + row * args.width;
#pragma omp simd
        for (int64_t c = 0; c < args.width; ++c) {
          output[c] = a[c] * b[c];
        }
      }
    });
  });
}

template <typename T>
void GluBackward(const GluBackwardArgs<T>& args) {
  ParallelRanges(args.rows, 5 * args.width, [&](int64_t begin, int64_t end) {
    RunVectorised([&]() LASP_ALWAYS_INLINE {
      for (int64_t row = begin; row < end; ++row) {
        const T* const a = args.a + row * args.a_stride;
        const T* const b = args.b + row * args.b_stride;
        const T* const gradient = args.output_gradient + row * args.width;
        T* const a_gradient = args.a_gradient + row * args.a_gradient_stride;
        T* const b_gradient = args.b_gradient + row * args.b_gradient_stride;
        T* const product = args.product == nullptr ? nullptr : args.product + row * args.width;
        // All read before any is written: the results may lie over a, b and the gradient.
        // The check does not see that one of the loops writes the product.
        // NOLINTNEXTLINE(bugprone-branch-clone)
        if (product == nullptr) {
#pragma omp simd
          for (int64_t c = 0; c < args.width; ++c) {
            const T a_value = a[c];
            const T b_value = b[c];
            a_gradient[c] = gradient[c] * b_value;
            b_gradient[c] = gradient[c] * a_value;
          }
        } else {
#pragma omp simd
          for (int64_t c = 0; c < args.width; ++c) {
            const T a_value = a[c];
            const T b_value = b[c];
            const T gradient_value = gradient[c];
            a_gradient[c] = gradient_value * b_value;
            b_gradient[c] = gradient_value * a_value;
            product[c] = a_value * b_value;
          }
        }
      }
    });
  });
}

template void GluForward<float>(const GluForwardArgs<float>&);
template void GluForward<double>(const GluForwardArgs<double>&);
template void GluBackward<float>(const GluBackwardArgs<float>&);
template void GluBackward<double>(const GluBackwardArgs<double>&);

}  // namespace lasp::kernels::cpu
