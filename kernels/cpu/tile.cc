#include "kernels/cpu/tile.h"

#include <cstddef>

#include "kernels/cpu/simd.h"

namespace lasp::kernels::cpu {
namespace {

// kBytes wide vectors that may lie anywhere a T may.
template <typename T, int kBytes>
struct VectorOf {
  typedef T Type __attribute__((vector_size(kBytes), aligned(alignof(T)), may_alias));
};

// The k range that row rows [i, i + kRows) of a triangular op(A) touch.
template <typename T>
LASP_ALWAYS_INLINE inline void DepthRange(const TileGemmArgs<T>& x, int64_t row, int64_t rows,
                                          int64_t* begin, int64_t* end) {
  *begin = x.part == Part::kUpperA ? std::min(row, x.k) : 0;
  *end = x.part == Part::kLowerA ? std::min(row + rows, x.k) : x.k;
}

// One [kRows, 2 vectors] piece of C, held in registers over the whole depth.
template <typename T, int kBytes, int kRows>
LASP_ALWAYS_INLINE inline void GemmPiece(const TileGemmArgs<T>& x, int64_t row, int64_t column) {
  using Vector = typename VectorOf<T, kBytes>::Type;
  constexpr auto kLanes = static_cast<int64_t>(kBytes / sizeof(T));
  const int64_t a_row = x.transpose_a ? 1 : x.a_stride;
  const int64_t a_depth = x.transpose_a ? x.a_stride : 1;
  int64_t begin = 0;
  int64_t end = 0;
  DepthRange(x, row, kRows, &begin, &end);
  Vector sum[kRows][2] = {};
  const T* a = x.a + row * a_row + begin * a_depth;
  const T* b = x.b + begin * x.b_stride + column;
  for (int64_t depth = begin; depth < end; ++depth) {
    const Vector b0 = *reinterpret_cast<const Vector*>(b);
    const Vector b1 = *reinterpret_cast<const Vector*>(b + kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const T value = a[r * a_row];
      sum[r][0] += value * b0;
      sum[r][1] += value * b1;
    }
    a += a_depth;
    b += x.b_stride;
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    T* const c = x.c + (row + r) * x.c_stride + column;
    auto* const c0 = reinterpret_cast<Vector*>(c);
    auto* const c1 = reinterpret_cast<Vector*>(c + kLanes);
    if (x.row_scale != nullptr) {
      // The rows that only pad the tile have no scale.
      const T scale = row + r < x.m ? x.row_scale[row + r] : T{0};
      sum[r][0] *= scale;
      sum[r][1] *= scale;
    }
    if (x.accumulate) {
      sum[r][0] += *c0;
      sum[r][1] += *c1;
    }
    *c0 = sum[r][0];
    *c1 = sum[r][1];
  }
}

template <typename T, int kBytes, int kRows>
LASP_ALWAYS_INLINE inline void GemmAll(const TileGemmArgs<T>& x) {
  constexpr auto kColumns = 2 * static_cast<int64_t>(kBytes / sizeof(T));
  for (int64_t column = 0; column < x.n; column += kColumns) {
    // Whole pieces above the diagonal are skipped.
    const int64_t first = x.part == Part::kLowerC ? column / kRows * kRows : 0;
    for (int64_t row = first; row < x.m; row += kRows) {
      GemmPiece<T, kBytes, kRows>(x, row, column);
    }
  }
}

template <typename T>
__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma"))) void GemmAvx512(
    const TileGemmArgs<T>& x) {
  GemmAll<T, 64, 8>(x);
}

template <typename T>
__attribute__((target("avx2,fma"))) void GemmAvx2(const TileGemmArgs<T>& x) {
  GemmAll<T, 32, 4>(x);
}

template <typename T>
void GemmBaseline(const TileGemmArgs<T>& x) {
  GemmAll<T, 16, 4>(x);
}

// Transposes a [kSize, kSize] piece in registers: log2(kSize) rounds, each exchanging half of the
// lanes between two rows. float: 8 rows of 8; double: 4 rows of 4.
LASP_ALWAYS_INLINE inline void TransposePiece(const float* in, int64_t in_stride, float* out,
                                              int64_t out_stride) {
  using Vector = VectorOf<float, 32>::Type;
  Vector a[8];
  Vector b[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    a[i] = *reinterpret_cast<const Vector*>(in + i * in_stride);
  }
#pragma GCC unroll 4
  for (ptrdiff_t i = 0; i < 4; ++i) {
    b[2 * i] = __builtin_shufflevector(a[2 * i], a[2 * i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    b[2 * i + 1] = __builtin_shufflevector(a[2 * i], a[2 * i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    a[i] = __builtin_shufflevector(b[i], b[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
    a[i + 1] = __builtin_shufflevector(b[i], b[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    a[i + 2] = __builtin_shufflevector(b[i + 1], b[i + 3], 0, 1, 8, 9, 4, 5, 12, 13);
    a[i + 3] = __builtin_shufflevector(b[i + 1], b[i + 3], 2, 3, 10, 11, 6, 7, 14, 15);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    *reinterpret_cast<Vector*>(out + i * out_stride) =
        __builtin_shufflevector(a[i], a[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    *reinterpret_cast<Vector*>(out + (i + 4) * out_stride) =
        __builtin_shufflevector(a[i], a[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

LASP_ALWAYS_INLINE inline void TransposePiece(const double* in, int64_t in_stride, double* out,
                                              int64_t out_stride) {
  using Vector = VectorOf<double, 32>::Type;
  Vector a[4];
  Vector b[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    a[i] = *reinterpret_cast<const Vector*>(in + i * in_stride);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 4; i += 2) {
    b[i] = __builtin_shufflevector(a[i], a[i + 1], 0, 4, 2, 6);
    b[i + 1] = __builtin_shufflevector(a[i], a[i + 1], 1, 5, 3, 7);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    *reinterpret_cast<Vector*>(out + i * out_stride) =
        __builtin_shufflevector(b[i], b[i + 2], 0, 1, 4, 5);
    *reinterpret_cast<Vector*>(out + (i + 2) * out_stride) =
        __builtin_shufflevector(b[i], b[i + 2], 2, 3, 6, 7);
  }
}

}  // namespace

template <typename T>
void TileGemm(const TileGemmArgs<T>& args) {
  switch (HostSimdLevel()) {
    case SimdLevel::kAvx512:
      GemmAvx512(args);
      return;
    case SimdLevel::kAvx2:
      GemmAvx2(args);
      return;
    case SimdLevel::kBaseline:
      GemmBaseline(args);
      return;
  }
}

template <typename T>
void LoadTile(int64_t rows, int64_t width, const T* source, int64_t source_stride, T* tile) {
  const int64_t stride = TileStride<T>(width);
  for (int64_t i = 0; i < rows; ++i) {
    std::copy_n(source + i * source_stride, width, tile + i * stride);
  }
}

template <typename T>
void StoreTile(int64_t rows, int64_t width, const T* tile, bool accumulate, T* target,
               int64_t target_stride) {
  const int64_t stride = TileStride<T>(width);
  if (!accumulate) {
    for (int64_t i = 0; i < rows; ++i) {
      std::copy_n(tile + i * stride, width, target + i * target_stride);
    }
    return;
  }
  RunVectorised([&]() LASP_ALWAYS_INLINE {
    for (int64_t i = 0; i < rows; ++i) {
      T* const out = target + i * target_stride;
      const T* const in = tile + i * stride;
#pragma omp simd
      for (int64_t c = 0; c < width; ++c) {
        out[c] += in[c];
      }
    }
  });
}

template <typename T>
void TransposeTile(int64_t rows, int64_t width, const T* tile, T* transposed) {
  constexpr auto kSize = static_cast<int64_t>(32 / sizeof(T));
  const int64_t in_stride = TileStride<T>(width);
  const int64_t out_stride = TileStride<T>(rows);
  // Padding is transposed along: both tiles are padded to at least kSize in either direction.
  RunVectorised([&]() LASP_ALWAYS_INLINE {
    for (int64_t i = 0; i < rows; i += kSize) {
      for (int64_t c = 0; c < width; c += kSize) {
        TransposePiece(tile + i * in_stride + c, in_stride, transposed + c * out_stride + i,
                       out_stride);
      }
    }
  });
}

template <typename T>
void ScaleRows(int64_t rows, int64_t width, const T* scale, const T* tile, T* scaled) {
  const int64_t stride = TileStride<T>(width);
  RunVectorised([&]() LASP_ALWAYS_INLINE {
    for (int64_t i = 0; i < rows; ++i) {
      const T factor = scale[i];
      const T* const in = tile + i * stride;
      T* const out = scaled + i * stride;
#pragma omp simd
      for (int64_t c = 0; c < width; ++c) {
        out[c] = factor * in[c];
      }
    }
  });
}

template <typename T>
void MaskDecay(int64_t size, const T* mask, T* tile) {
  const int64_t stride = TileStride<T>(size);
  RunVectorised([&]() LASP_ALWAYS_INLINE {
    for (int64_t i = 0; i < size; ++i) {
      T* const row = tile + i * stride;
      const T* const factor = mask + (size - 1 - i);
      // Selected, not multiplied, above the diagonal: what lies there may be anything.
#pragma omp simd
      for (int64_t j = 0; j < size; ++j) {
        row[j] = j <= i ? row[j] * factor[j] : T{0};
      }
    }
  });
}

#define LASP_INSTANTIATE(T)                                                  \
  template void TileGemm<T>(const TileGemmArgs<T>&);                         \
  template void LoadTile<T>(int64_t, int64_t, const T*, int64_t, T*);        \
  template void StoreTile<T>(int64_t, int64_t, const T*, bool, T*, int64_t); \
  template void TransposeTile<T>(int64_t, int64_t, const T*, T*);            \
  template void ScaleRows<T>(int64_t, int64_t, const T*, const T*, T*);      \
  template void MaskDecay<T>(int64_t, const T*, T*);
LASP_INSTANTIATE(float)
LASP_INSTANTIATE(double)
#undef LASP_INSTANTIATE

}  // namespace lasp::kernels::cpu
