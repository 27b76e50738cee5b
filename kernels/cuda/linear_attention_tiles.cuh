// The pieces that linear attention's kernels are made of: decay tables, tiles in shared memory, and
// what a warpgroup does to fragments of them in registers.
//
// A tile is 64 tokens by 128 columns of one head in bf16: two panels of 64 columns (hopper.h).
// Columns past the head's size and tokens past the sequence's end are zeros. A state is kept as an
// accumulator, a warpgroup holding 64 of its 128 rows; its rows are the value side's columns and
// its columns the key side's, so that both products with it read shared memory as it lies there.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/hopper.h"
#include "kernels/cuda/linear_attention_marks.cuh"
#include "kernels/cuda/linear_attention_segments.h"

namespace lasp::kernels::cuda {

inline constexpr int kPanelColumns = 64;
inline constexpr int kPanelBytes = kChunk * 2 * kPanelColumns;
inline constexpr int kTileBytes = 2 * kPanelBytes;
inline constexpr int kStatePanelBytes = 128 * 2 * kPanelColumns;  // 128 rows
inline constexpr int kStateBytes = 2 * kStatePanelBytes;
inline constexpr int kWarpgroup = 128;
inline constexpr int kMathThreads = 2 * kWarpgroup;
// Two warpgroups compute, one more loads and gives up its registers to them.
inline constexpr int kBlockThreads = kMathThreads + kWarpgroup;
inline constexpr int kLoadRegisters = 40;
inline constexpr int kMathRegisters = 232;
// Tokens further away than this many time constants are not seen.
inline constexpr float kFarthestExponent = 40;

// lambda^e for e in [-64, 64], zero for e < 0: a mask and a weight in one, with no exponent
// positive.
class DecayTable {
 public:
  static constexpr int kElements = 132;

  explicit __device__ DecayTable(float* values) : values_(values) {}

  // By all threads of the block; a barrier must follow.
  __device__ void Fill(double slope, int thread, int threads) {
    for (int i = thread; i <= 2 * kChunk; i += threads) {
      const int exponent = i - kChunk;
      values_[i] = exponent < 0 ? 0.0F : static_cast<float>(exp(-slope * exponent));
    }
  }

  __device__ float operator[](int exponent) const { return values_[kChunk + exponent]; }

 private:
  float* values_;
};

// lambda^distance over any distance >= 0.
inline __device__ float FarDecay(double slope, int64_t distance) {
  return static_cast<float>(exp(-slope * static_cast<double>(distance)));
}

// The thread's warpgroup, in a form that the compiler knows to be the same over a warp, so that
// addresses and descriptors made from it are computed once a warp.
inline __device__ int UniformWarpgroup() {
  return __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / kWarpgroup, 0);
}

// The same value, of which the compiler knows nothing. What a loop computes from it stays in the
// loop: addresses made ahead would fill the registers, and spill.
inline __device__ int Opaque(int value) {
  asm volatile("" : "+r"(value));
  return value;
}

// Where a thread's elements of accumulators and fragments lie.
struct FragmentLane {
  int warp;    // of the warpgroup
  int lane;    // of the warp
  int row;     // of an accumulator's element 0; its other row is 8 on
  int column;  // of an accumulator's element 0; also a fragment's first contracted index

  explicit __device__ FragmentLane(int thread)
      : warp(thread / 32 % 4),
        lane(thread % 32),
        row(16 * warp + lane / 4),
        column(2 * (lane % 4)) {}
};

inline __device__ uint32_t PieceOffset(int row, int piece) {
  return static_cast<uint32_t>(row * 128 + ((piece ^ (row & 7)) << 4));
}

// Fragments of a panel [64 tokens, 64 columns], transposed: the left operand of a product that
// contracts tokens. fragment[k] covers tokens 16 k .. 16 k + 15; register r holds tokens
// 16 k + column + {0, 1} + 8 (r / 2).
using TokenFragments = uint32_t[4][4];

inline __device__ void LoadTransposed(uint32_t panel, const FragmentLane& at, int k,
                                      uint32_t (&fragment)[4]) {
  const int token = (at.lane & 7) + 8 * (at.lane >> 4);
  const int piece = 2 * at.warp + ((at.lane >> 3) & 1);
  hopper::LoadMatricesTransposed(panel + PieceOffset(16 * k + token, piece), fragment);
}

inline __device__ void LoadTransposed(uint32_t panel, const FragmentLane& at,
                                      TokenFragments& fragments) {
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    LoadTransposed(panel, at, k, fragments[k]);
  }
}

// Multiplies each token by its weight, in fp32, and rounds once.
template <typename WeightOf, typename... Fragments>
__device__ void ScaleTokens(const FragmentLane& at, WeightOf weight_of, Fragments&... fragments) {
#pragma unroll
  for (int k = 0; k < 4; ++k) {
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {
      const int token = 16 * k + at.column + 8 * pair;
      const float low = weight_of(token);
      const float high = weight_of(token + 1);
      const auto scale = [&](uint32_t& packed) {
        packed = hopper::PackBfloat16(hopper::LowOf(packed) * low, hopper::HighOf(packed) * high);
      };
      ((scale(fragments[k][2 * pair]), scale(fragments[k][2 * pair + 1])), ...);
    }
  }
}

// Scores times their decay as the left operand of the next product. The exponent is row - column,
// or column - row where time runs backwards; what is of negative exponent is masked. Pairs of
// tokens between which a document starts are masked too. `at.column` counts from the chunk's first
// token.
template <bool kReverse, int kCount>
__device__ void DecayScores(const DecayTable& decay, const FragmentLane& at, uint64_t marks,
                            float (&scores)[kCount], uint32_t (&operand)[kCount / 8][4]) {
  if (marks != 0) {
    const int first_row = Opaque(at.row);
    const int first_column = Opaque(at.column);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int row = first_row + 8 * ((i >> 1) & 1);
      const int column = 8 * (i >> 2) + first_column + (i & 1);
      const int later = kReverse ? column : row;
      const int earlier = kReverse ? row : column;
      if (later > earlier) {
        const uint64_t between = (marks >> (earlier + 1)) & (~0ull >> (64 - (later - earlier)));
        scores[i] = between == 0 ? scores[i] : 0.0F;
      }
    }
  }
  const int difference = kReverse ? at.column - at.row : at.row - at.column;
#pragma unroll
  for (int n = 0; n < kCount / 4; ++n) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int exponent = kReverse ? difference + 8 * (n - half) : difference - 8 * (n - half);
      const float low = scores[4 * n + 2 * half] * decay[exponent];
      const float high =
          scores[4 * n + 2 * half + 1] * decay[kReverse ? exponent + 1 : exponent - 1];
      operand[n / 2][2 * (n & 1) + half] = hopper::PackBfloat16(low, high);
    }
  }
}

// Multiplies an accumulator's rows, the thread's first and the one 8 on.
template <int kCount>
__device__ void ScaleRows(float first, float second, float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    d[i] *= (i & 2) == 0 ? first : second;
  }
}

// Multiplies an accumulator's columns by the weights of its tokens.
template <typename WeightOf, typename... Accumulators>
__device__ void ScaleColumns(const FragmentLane& at, WeightOf weight_of, Accumulators&... d) {
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    const float low = weight_of(8 * n + at.column);
    const float high = weight_of(8 * n + at.column + 1);
    ((d[4 * n] *= low, d[4 * n + 1] *= high, d[4 * n + 2] *= low, d[4 * n + 3] *= high), ...);
  }
}

template <int kCount>
__device__ void Scale(float factor, float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    d[i] *= factor;
  }
}

// Rounds an accumulator of 64 rows into panels of shared memory, its row 0 at row `first_row`.
template <int kCount>
__device__ void StoreRounded(const float (&d)[kCount], const FragmentLane& at, int first_row,
                             uint32_t panels, uint32_t panel_bytes) {
  const int row = first_row + 16 * at.warp + (at.lane & 15);
#pragma unroll
  for (int n = 0; n < kCount / 4; n += 2) {
    const int group = n + (at.lane >> 4);
    hopper::StoreMatrices(
        panels + static_cast<uint32_t>(n / 8) * panel_bytes + PieceOffset(row, group & 7),
        hopper::PackBfloat16(d[4 * n], d[4 * n + 1]),
        hopper::PackBfloat16(d[4 * n + 2], d[4 * n + 3]),
        hopper::PackBfloat16(d[4 * n + 4], d[4 * n + 5]),
        hopper::PackBfloat16(d[4 * n + 6], d[4 * n + 7]));
  }
}

// Rounds an accumulator whose columns are tokens into a panel of tokens, its rows being columns.
inline __device__ void StoreTransposed(const float (&d)[32], const FragmentLane& at,
                                       uint32_t panel) {
  const int token = (at.lane & 7) + 8 * (at.lane >> 4);
  const int piece = 2 * at.warp + ((at.lane >> 3) & 1);
#pragma unroll
  for (int n = 0; n < 8; n += 2) {
    hopper::StoreMatricesTransposed(panel + PieceOffset(8 * n + token, piece),
                                    hopper::PackBfloat16(d[4 * n], d[4 * n + 1]),
                                    hopper::PackBfloat16(d[4 * n + 2], d[4 * n + 3]),
                                    hopper::PackBfloat16(d[4 * n + 4], d[4 * n + 5]),
                                    hopper::PackBfloat16(d[4 * n + 6], d[4 * n + 7]));
  }
}

// A state in device memory [key_size, value_size] as the accumulator sees it: rows and columns
// exchanged where the accumulator's rows are the memory's columns.
struct StateLayout {
  int rows;  // of the accumulator that exist
  int columns;
  int row_stride;
  int column_stride;

  // Rows of the accumulator are values (of the state), columns keys; or the other way round.
  static __host__ __device__ StateLayout ValuesByKeys(int key_size, int value_size) {
    return {value_size, key_size, 1, value_size};
  }

  static __host__ __device__ StateLayout KeysByValues(int key_size, int value_size) {
    return {key_size, value_size, value_size, 1};
  }
};

// Element i of an accumulator whose row 0 is the state's row `first_row`.
struct StateElement {
  bool exists;
  int offset;

  __device__ StateElement(const StateLayout& layout, const FragmentLane& at, int first_row, int i) {
    const int row = first_row + at.row + 8 * ((i >> 1) & 1);
    const int column = 8 * (i >> 2) + at.column + (i & 1);
    exists = row < layout.rows && column < layout.columns;
    offset = row * layout.row_stride + column * layout.column_stride;
  }
};

// d = near + factor * far, each null for zeros.
template <int kCount>
__device__ void LoadState(const StateLayout& layout, const FragmentLane& at, int first_row,
                          const float* near, const float* far, float factor, float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const StateElement element(layout, at, first_row, i);
    d[i] = near != nullptr && element.exists ? near[element.offset] : 0.0F;
  }
  if (far == nullptr || factor == 0) {
    return;
  }
  // All loads before the first use of one.
  float added[kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const StateElement element(layout, at, first_row, i);
    added[i] = element.exists ? far[element.offset] : 0.0F;
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    d[i] = fmaf(factor, added[i], d[i]);
  }
}

template <int kCount>
__device__ void StoreState(const StateLayout& layout, const FragmentLane& at, int first_row,
                           const float (&d)[kCount], float* to) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const StateElement element(layout, at, first_row, i);
    if (element.exists) {
      to[element.offset] = d[i];
    }
  }
}

// A ring of stages in shared memory, and which turn of it a thread is at.
template <int kStages>
struct Ring {
  int stage = 0;
  uint32_t phase = 0;

  __device__ void Advance() {
    if (++stage == kStages) {
      stage = 0;
      phase ^= 1;
    }
  }
};

}  // namespace lasp::kernels::cuda
