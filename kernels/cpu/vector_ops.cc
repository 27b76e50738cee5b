#include "kernels/vector_ops.h"

#include <algorithm>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/simd.h"

namespace lasp::kernels::cpu {

template <typename T>
void Fill(int64_t count, T value, T* x) {
  ParallelRanges(count, 1,
                 [&](int64_t begin, int64_t end) { std::fill(x + begin, x + end, value); });
}

template <typename T>
void Scale(int64_t count, T factor, T* x) {
  ParallelRanges(count, 2, [&](int64_t begin, int64_t end) {
    RunVectorised([&]() LASP_ALWAYS_INLINE {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) {
        x[i] *= factor;
      }
    });
  });
}

template <typename T>
void Axpy(int64_t count, T factor, const T* x, T* y) {
  ParallelRanges(count, 3, [&](int64_t begin, int64_t end) {
    RunVectorised([&]() LASP_ALWAYS_INLINE {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) {
        y[i] += factor * x[i];
      }
    });
  });
}

template <typename T>
void Add(int64_t count, const T* a, const T* b, T* sum) {
  ParallelRanges(count, 3, [&](int64_t begin, int64_t end) {
    RunVectorised([&]() LASP_ALWAYS_INLINE {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) {
        sum[i] = a[i] + b[i];
      }
    });
  });
}

#define LASP_INSTANTIATE(T)                        \
  template void Fill<T>(int64_t, T, T*);           \
  template void Scale<T>(int64_t, T, T*);          \
  template void Axpy<T>(int64_t, T, const T*, T*); \
  template void Add<T>(int64_t, const T*, const T*, T*);
LASP_INSTANTIATE(float)
LASP_INSTANTIATE(double)
#undef LASP_INSTANTIATE

}  // namespace lasp::kernels::cpu
