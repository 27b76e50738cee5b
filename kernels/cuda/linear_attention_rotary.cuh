// LRPE inside the kernels (kernels/lrpe.h): keys and queries turned by theta times their position,
// and gradients turned back.
//
// A position counts from the origin of the thread block's state, which stays where it is for a
// whole segment, so that no state turns inside one. Its angle is that of the chunk's first token,
// carried from chunk to chunk in fp64, plus that of the token within the chunk, found by adding one
// fixed angle a few times in fp32.
#pragma once

#include <cstdint>

#include "kernels/cuda/linear_attention_tiles.cuh"

namespace lasp::kernels::cuda {

inline constexpr int kRotaryColumns = 2 * kPanelColumns;
// States of twice the size leave the loading warps few.
inline constexpr int kRotaryLoadRegisters = 24;
inline constexpr int kRotaryMathRegisters = 240;

// cos and sin of one angle.
struct alignas(8) Angle {
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

// theta times a number of tokens. A state whose origin moves ahead by that many has
// a' = a cos + b sin, b' = b cos - a sin.
inline __device__ Angle AngleOf(double theta, int64_t tokens) {
  double s;
  double c;
  sincos(theta * static_cast<double>(tokens), &s, &c);
  return {static_cast<float>(c), static_cast<float>(s)};
}

// Angles of a head's columns over the tokens of a chunk that one thread has in fragments and
// accumulators: keys are their rows, tokens their columns. In shared memory.
struct FragmentAngles {
  Angle one[kRotaryColumns];      // one token
  Angle eight[kRotaryColumns];    // eight
  Angle lane[kRotaryColumns][4];  // a thread's first token: 0, 2, 4, 6

  // By all threads; theta is the head's. Columns past the head's size do not turn.
  __device__ void Fill(const double* theta, int size, int thread, int threads) {
    for (int i = thread; i < 6 * kRotaryColumns; i += threads) {
      const int column = i % kRotaryColumns;
      const int which = i / kRotaryColumns;
      const int tokens = which == 0 ? 1 : which == 1 ? 8 : 2 * (which - 2);
      const Angle angle = AngleOf(column < size ? theta[column] : 0.0, tokens);
      if (which == 0) {
        one[column] = angle;
      } else if (which == 1) {
        eight[column] = angle;
      } else {
        lane[column][which - 2] = angle;
      }
    }
  }
};

// The angles of a thread's two rows of keys at two neighbouring tokens, from its first two on.
class TokenAngles {
 public:
  // `chunk` has the columns' angles at the chunk's first token.
  __device__ TokenAngles(const FragmentAngles& angles, const Angle* chunk, int first_key,
                         const FragmentLane& at) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int key = first_key + at.row + 8 * half;
      low_[half] = chunk[key] + angles.lane[key][at.lane % 4];
      high_[half] = low_[half] + angles.one[key];
      step_[half] = angles.eight[key];
    }
  }

  __device__ const Angle& Low(int half) const { return low_[half]; }

  __device__ const Angle& High(int half) const { return high_[half]; }

  // To the tokens eight on.
  __device__ void Advance() {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      low_[half] = low_[half] + step_[half];
      high_[half] = high_[half] + step_[half];
    }
  }

 private:
  Angle low_[2];
  Angle high_[2];
  Angle step_[2];
};

// Splits a fragment of keys, that of tokens 16 k .. 16 k + 15, into its cosine and sine halves,
// each token multiplied by its weight; moves the angles on. Rounds once.
template <typename WeightOf>
__device__ void RotateFragment(const FragmentLane& at, int k, WeightOf weight_of,
                               const uint32_t (&keys)[4], TokenAngles& angles,
                               uint32_t (&cosine)[4], uint32_t (&sine)[4]) {
#pragma unroll
  for (int r = 0; r < 4; r += 2) {
    const int token = 16 * k + 4 * r + at.column;
    const float low = weight_of(token);
    const float high = weight_of(token + 1);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float x0 = hopper::LowOf(keys[r + half]) * low;
      const float x1 = hopper::HighOf(keys[r + half]) * high;
      const Angle& first = angles.Low(half);
      const Angle& second = angles.High(half);
      cosine[r + half] = hopper::PackBfloat16(x0 * first.cosine, x1 * second.cosine);
      sine[r + half] = hopper::PackBfloat16(x0 * first.sine, x1 * second.sine);
    }
    angles.Advance();
  }
}

// Turns back what a state of cosine and sine halves gives, its rows being keys and its columns
// tokens; the result replaces the cosine half.
inline __device__ void TurnBack(TokenAngles angles, const float (&sine_half)[32],
                                float (&cosine_half)[32]) {
#pragma unroll
  for (int n = 0; n < 8; ++n) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Angle& first = angles.Low(half);
      const Angle& second = angles.High(half);
      const int i = 4 * n + 2 * half;
      cosine_half[i] = cosine_half[i] * first.cosine + sine_half[i] * first.sine;
      cosine_half[i + 1] = cosine_half[i + 1] * second.cosine + sine_half[i + 1] * second.sine;
    }
    angles.Advance();
  }
}

// Angles of a head's columns over the rows of a tile, each of the eight math warps having eight. In
// shared memory.
struct RowAngles {
  Angle one[kRotaryColumns];
  Angle first[kMathThreads / 32][kRotaryColumns];  // a warp's first row

  // By all threads; theta is the head's. Columns past the head's size do not turn.
  __device__ void Fill(const double* theta, int size, int thread, int threads) {
    for (int i = thread; i < 9 * kRotaryColumns; i += threads) {
      const int column = i % kRotaryColumns;
      const int which = i / kRotaryColumns;
      const Angle angle =
          AngleOf(column < size ? theta[column] : 0.0, which == 0 ? 1 : 8 * (which - 1));
      (which == 0 ? one : first[which - 1])[column] = angle;
    }
  }
};

// Two tiles' cosine halves, then their sine halves, from the tiles as loaded. A warp has eight rows
// and a lane four columns. By all math threads; `chunk` has the columns' angles at the chunk's
// first token.
inline __device__ void RotateTiles(const RowAngles& rows, const Angle* chunk,
                                   const uint8_t* const (&tiles)[2], uint8_t* const (&rotated)[2],
                                   int thread) {
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int column = 4 * lane;
  Angle angles[4];
  Angle steps[4];
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const float4 of_chunk = *reinterpret_cast<const float4*>(chunk + column + i);
    const float4 of_row = *reinterpret_cast<const float4*>(rows.first[warp] + column + i);
    const float4 step = *reinterpret_cast<const float4*>(rows.one + column + i);
    angles[i] = Angle{of_chunk.x, of_chunk.y} + Angle{of_row.x, of_row.y};
    angles[i + 1] = Angle{of_chunk.z, of_chunk.w} + Angle{of_row.z, of_row.w};
    steps[i] = {step.x, step.y};
    steps[i + 1] = {step.z, step.w};
  }
  const auto first = static_cast<uint32_t>(lane / 16 * kPanelBytes + warp * 8 * 128 + lane % 2 * 8);
  const int piece = lane % 16 / 2;
#pragma unroll
  for (int begin = 0; begin < 8; begin += 4) {
    // All loads of four rows before the first store.
    uint2 loaded[4][2];
#pragma unroll
    for (int r = 0; r < 4; ++r) {
#pragma unroll
      for (int t = 0; t < 2; ++t) {
        loaded[r][t] =
            *reinterpret_cast<const uint2*>(tiles[t] + first + PieceOffset(begin + r, piece));
      }
    }
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const uint32_t offset = first + PieceOffset(begin + r, piece);
#pragma unroll
      for (int t = 0; t < 2; ++t) {
        const uint2 packed = loaded[r][t];
        const float x[4] = {hopper::LowOf(packed.x), hopper::HighOf(packed.x),
                            hopper::LowOf(packed.y), hopper::HighOf(packed.y)};
        *reinterpret_cast<uint2*>(rotated[t] + offset) = {
            hopper::PackBfloat16(x[0] * angles[0].cosine, x[1] * angles[1].cosine),
            hopper::PackBfloat16(x[2] * angles[2].cosine, x[3] * angles[3].cosine)};
        *reinterpret_cast<uint2*>(rotated[t] + kTileBytes + offset) = {
            hopper::PackBfloat16(x[0] * angles[0].sine, x[1] * angles[1].sine),
            hopper::PackBfloat16(x[2] * angles[2].sine, x[3] * angles[3].sine)};
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        angles[i] = angles[i] + steps[i];
      }
    }
  }
}

}  // namespace lasp::kernels::cuda
