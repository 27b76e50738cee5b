// LRPE inside the kernels (kernels/lrpe.h): rows of keys and queries turned by theta times their
// position as they arrive in shared memory, and gradients turned back as they leave.
//
// A position counts from the origin of the thread block's state, which stays where it is for a
// whole segment, so that no state turns inside one. Its angle is that of the row within the chunk,
// from a table, plus that of the chunk, carried from chunk to chunk in fp64.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/cuda/linear_attention_tiles.cuh"

namespace lasp::kernels::cuda {

inline constexpr int kRotaryColumns = 2 * kPanelColumns;

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

// cos and sin of one angle.
struct Angle {
  float cosine;
  float sine;

  __device__ Angle operator+(const Angle& other) const {
    return {cosine * other.cosine - sine * other.sine, sine * other.cosine + cosine * other.sine};
  }
};

// The angle of one column at the chunks' first tokens, one after another.
class ChunkAngle {
 public:
  __device__ ChunkAngle(double theta, int64_t position, int step) {
    sincos(theta * static_cast<double>(position), &sine_, &cosine_);
    sincos(theta * step, &step_sine_, &step_cosine_);
  }

  __device__ Angle Get() const { return {static_cast<float>(cosine_), static_cast<float>(sine_)}; }

  __device__ void Advance() {
    const double c = cosine_ * step_cosine_ - sine_ * step_sine_;
    sine_ = sine_ * step_cosine_ + cosine_ * step_sine_;
    cosine_ = c;
  }

 private:
  double cosine_;
  double sine_;
  double step_cosine_;
  double step_sine_;
};

// Replaces tiles by their cosine halves and writes their sine halves, by all math threads. `chunk`
// has the columns' angles at the chunk's first token.
template <int kTiles>
__device__ void RotateTiles(const RotaryTable& table, const Angle* chunk,
                            uint8_t* const (&tiles)[kTiles], uint8_t* const (&sines)[kTiles],
                            int thread) {
  const int piece = thread % 16;
  const int first_row = thread / 16 * 4;
  Angle columns[8];
#pragma unroll
  for (int i = 0; i < 8; i += 2) {
    const float4 two = *reinterpret_cast<const float4*>(chunk + 8 * piece + i);
    columns[i] = {two.x, two.y};
    columns[i + 1] = {two.z, two.w};
  }
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    const int row = first_row + r;
    const int at = RotaryTable::At(row, 8 * piece);
    const uint4 cosine = *reinterpret_cast<const uint4*>(table.cosine + at);
    const uint4 sine = *reinterpret_cast<const uint4*>(table.sine + at);
    const uint32_t offset =
        static_cast<uint32_t>(piece / 8 * kPanelBytes) + PieceOffset(row, piece & 7);
    uint32_t x[kTiles][4];
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      const uint4 packed = *reinterpret_cast<const uint4*>(tiles[t] + offset);
      x[t][0] = packed.x;
      x[t][1] = packed.y;
      x[t][2] = packed.z;
      x[t][3] = packed.w;
    }
    const uint32_t cosines[4] = {cosine.x, cosine.y, cosine.z, cosine.w};
    const uint32_t sines_of_row[4] = {sine.x, sine.y, sine.z, sine.w};
    uint32_t y[kTiles][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 c = __half22float2(*reinterpret_cast<const __half2*>(&cosines[i]));
      const float2 s = __half22float2(*reinterpret_cast<const __half2*>(&sines_of_row[i]));
      const Angle low = columns[2 * i] + Angle{c.x, s.x};
      const Angle high = columns[2 * i + 1] + Angle{c.y, s.y};
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const float x0 = hopper::LowOf(x[t][i]);
        const float x1 = hopper::HighOf(x[t][i]);
        x[t][i] = hopper::PackBfloat16(x0 * low.cosine, x1 * high.cosine);
        y[t][i] = hopper::PackBfloat16(x0 * low.sine, x1 * high.sine);
      }
    }
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      *reinterpret_cast<uint4*>(tiles[t] + offset) = {x[t][0], x[t][1], x[t][2], x[t][3]};
      *reinterpret_cast<uint4*>(sines[t] + offset) = {y[t][0], y[t][1], y[t][2], y[t][3]};
    }
  }
}

// d[i] times cosine (kSine false) or sine of its row's and column's angle; `first_column` is the
// accumulator's column 0.
template <bool kSine>
__device__ void MultiplyByAngles(const RotaryTable& table, const Angle* chunk,
                                 const FragmentLane& at, int first_column, float (&d)[32]) {
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    const int column = first_column + 8 * n + at.column;
    const float4 two = *reinterpret_cast<const float4*>(chunk + column);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int index = RotaryTable::At(at.row + 8 * half, column);
      const float2 c = __half22float2(*reinterpret_cast<const __half2*>(table.cosine + index));
      const float2 s = __half22float2(*reinterpret_cast<const __half2*>(table.sine + index));
      const Angle low = Angle{two.x, two.y} + Angle{c.x, s.x};
      const Angle high = Angle{two.z, two.w} + Angle{c.y, s.y};
      d[4 * n + 2 * half] *= kSine ? low.sine : low.cosine;
      d[4 * n + 2 * half + 1] *= kSine ? high.sine : high.cosine;
    }
  }
}

// theta times a number of tokens. A state whose origin moves ahead by that many has
// a' = a cos + b sin, b' = b cos - a sin.
inline __device__ Angle AngleOf(double theta, int64_t tokens) {
  double s;
  double c;
  sincos(theta * static_cast<double>(tokens), &s, &c);
  return {static_cast<float>(c), static_cast<float>(s)};
}

}  // namespace lasp::kernels::cuda
