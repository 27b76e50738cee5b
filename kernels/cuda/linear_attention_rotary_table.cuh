// A panel of keys turned in shared memory, with a table of the angles of a chunk's rows.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/cuda/linear_attention_rotary.cuh"
#include "kernels/cuda/linear_attention_tiles.cuh"

namespace lasp::kernels::cuda {

// cos and sin of theta times a row of a chunk, in halves: their rounding is an eighth of bf16's.
// The pieces of 8 columns are exchanged within a row as in tiles.
struct RotaryTable {
  __half cosine[kChunk * kRotaryColumns];
  __half sine[kChunk * kRotaryColumns];

  static __device__ int At(int row, int column) {
    return row * kRotaryColumns + (((column >> 3) ^ (row & 7)) << 3) + (column & 7);
  }

  // By all threads; theta is the head's. Columns past the head's size do not turn.
  __device__ void Fill(const double* theta, int size, int thread, int threads) {
    const int column = thread % kRotaryColumns;
    const double angle = column < size ? theta[column] : 0.0;
    for (int row = thread / kRotaryColumns; row < kChunk; row += threads / kRotaryColumns) {
      double s;
      double c;
      sincos(angle * row, &s, &c);
      cosine[At(row, column)] = __double2half(c);
      sine[At(row, column)] = __double2half(s);
    }
  }
};

// d[i] times cosine (kSine false) or sine of its row's and column's angle; `first_column` is the
// accumulator's column 0.
template <bool kSine>
__device__ void MultiplyByAngles(const RotaryTable& table, const FragmentLane& at, int first_column,
                                 float (&d)[32]) {
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    const int column = first_column + 8 * n + at.column;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int index = RotaryTable::At(at.row + 8 * half, column);
      const float2 angle = __half22float2(
          *reinterpret_cast<const __half2*>((kSine ? table.sine : table.cosine) + index));
      d[4 * n + 2 * half] *= angle.x;
      d[4 * n + 2 * half + 1] *= angle.y;
    }
  }
}

// Rotates a panel of keys: its cosine half in place. By all math threads.
inline __device__ void RotatePanel(const RotaryTable& table, int panel, uint8_t* tile,
                                   uint8_t* sines, int thread) {
  const int piece = thread % 8;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = thread / 8 * 2 + r;
    auto* const at = reinterpret_cast<uint4*>(tile + PieceOffset(row, piece));
    auto* const sine_at = reinterpret_cast<uint4*>(sines + PieceOffset(row, piece));
    const uint4 packed = *at;
    uint32_t x[4] = {packed.x, packed.y, packed.z, packed.w};
    uint32_t y[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int column = panel * kPanelColumns + 8 * piece + 2 * i;
      const int index = RotaryTable::At(row, column);
      const float2 c = __half22float2(*reinterpret_cast<const __half2*>(table.cosine + index));
      const float2 s = __half22float2(*reinterpret_cast<const __half2*>(table.sine + index));
      const float x0 = hopper::LowOf(x[i]);
      const float x1 = hopper::HighOf(x[i]);
      x[i] = hopper::PackBfloat16(x0 * c.x, x1 * c.y);
      y[i] = hopper::PackBfloat16(x0 * s.x, x1 * s.y);
    }
    *at = {x[0], x[1], x[2], x[3]};
    *sine_at = {y[0], y[1], y[2], y[3]};
  }
}

}  // namespace lasp::kernels::cuda
