// Small matrices in working memory, and what linear attention does with them.
//
// A tile is row-major with a padded stride (TileStride); what lies between its width and its stride
// is never meaningful, and neither are the rows up to the next multiple of kTileRows. Every operand
// is copied into tiles first: rows of the packed projections lie a power of two apart, which would
// map them all to the same cache sets.
#pragma once

#include <algorithm>
#include <cstdint>

namespace lasp::kernels::cpu {

inline constexpr int64_t kTileRows = 8;

// The stride of a tile of this width: whole groups of two 64-byte vectors.
template <typename T>
constexpr int64_t TileStride(int64_t width) {
  constexpr auto kGroup = static_cast<int64_t>(128 / sizeof(T));
  return (width + kGroup - 1) / kGroup * kGroup;
}

// Elements of a tile.
template <typename T>
constexpr int64_t TileElements(int64_t rows, int64_t width) {
  return (rows + kTileRows - 1) / kTileRows * kTileRows * TileStride<T>(width);
}

enum class Part {
  kAll,
  kLowerA,  // op(A) is lower triangular: row i uses k <= i
  kUpperA,  // op(A) is upper triangular: row i uses k >= i
  kLowerC,  // only the columns <= i of row i of C are wanted; the others may hold anything
};

// C = diag(row_scale) op(A) B [+ C], with op(A) [m, k], B [k, n]. All three are tiles.
template <typename T>
struct TileGemmArgs {
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  const T* a = nullptr;
  int64_t a_stride = 0;
  bool transpose_a = false;  // A is stored [k, m]
  const T* b = nullptr;
  int64_t b_stride = 0;
  T* c = nullptr;
  int64_t c_stride = 0;
  const T* row_scale = nullptr;  // [m]; null: ones
  bool accumulate = false;
  Part part = Part::kAll;
};

template <typename T>
void TileGemm(const TileGemmArgs<T>& args);

// tile[i, c] = source[i * source_stride + c]
template <typename T>
void LoadTile(int64_t rows, int64_t width, const T* source, int64_t source_stride, T* tile);

// target[i * target_stride + c] = tile[i, c], or added to it.
template <typename T>
void StoreTile(int64_t rows, int64_t width, const T* tile, bool accumulate, T* target,
               int64_t target_stride);

// transposed[c, i] = tile[i, c]: [rows, width] with stride TileStride(width) to [width, rows] with
// stride TileStride(rows).
template <typename T>
void TransposeTile(int64_t rows, int64_t width, const T* tile, T* transposed);

// scaled[i, c] = scale[i] * tile[i, c]; may be in place.
template <typename T>
void ScaleRows(int64_t rows, int64_t width, const T* scale, const T* tile, T* scaled);

// tile[i, j] *= powers[i - j] for j <= i, and 0 above the diagonal, for a square tile of `size`
// rows. `mask` has 2 * size - 1 elements: mask[t] = powers[size - 1 - t], then zeros.
template <typename T>
void MaskDecay(int64_t size, const T* mask, T* tile);

}  // namespace lasp::kernels::cpu
