// The sweeps of linear attention with LRPE, whose states have twice the key size: a cosine half and
// a sine half of each row of keys.
//
// With LA(X, Y, Z) as in linear_attention_sweep.cu, LAr its time reversal, and ~ for rotated rows:
// o = LA(q~, k~, v), dv = LAr(k~, q~, do), dq~ = LA(do, v, k~), dk~ = LAr(v, do, q~). The first two
// rotate what is contracted with the state, the others what the state gives, and turn it back.
//
// Each math warpgroup owns 64 of the output's columns and the state's elements that these need,
// both halves, with the output's columns as its rows. So rounded registers of the state are an
// operand of output^T = state x^T + z^T scores^T as they are, and the state never goes to shared
// memory. The scores do: each warpgroup computes the half of them with its 32 tokens of y.
#pragma once

#include "kernels/cuda/linear_attention_launch.cuh"
#include "kernels/cuda/linear_attention_marks.cuh"
#include "kernels/cuda/linear_attention_rotary.cuh"
#include "kernels/cuda/linear_attention_rotary.h"
#include "kernels/cuda/linear_attention_tiles.cuh"

namespace lasp::kernels::cuda {

struct RotaryParameters {
  CUtensorMap x;
  CUtensorMap y;
  CUtensorMap z;
  CUtensorMap output;
  Segments segments;
  const double* theta;  // [heads, key_size]
  int key_size;
  StateLayout layout;  // of one half of the state
  int64_t half_elements;
  const float* segment_states;  // [batch, heads, segments]; null: zeros
  const float* state_in;        // [batch, heads]: joins them, decayed and turned; null: zeros
  float* segment_starts;        // their sum is kept here, or null
};

// Chunks in the order of the sweep.
template <bool kReverse>
struct Order {
  int first;
  int end;

  __device__ int At(int i) const { return kReverse ? end - 1 - i : first + i; }
};

// What a chunk's tokens are weighted with: as they see the state, and as it sees them. In shared
// memory.
struct TokenWeights {
  float of_state[kChunk];
  float into_state[kChunk];
};

// One element, for each of the 128 threads of the loading warpgroup.
template <bool kReverse>
__device__ void FillWeight(const DecayTable& decay, int length, uint64_t marks, int thread,
                           TokenWeights& weights) {
  const int token = thread % kChunk;
  const float ahead = token < FirstMark(marks) ? decay[token + 1] : 0.0F;
  const float behind = token >= LastMark(marks) ? decay[length - 1 - token] : 0.0F;
  if (thread < kChunk) {
    weights.of_state[token] = kReverse ? behind : ahead;
  } else {
    weights.into_state[token] = kReverse ? ahead : behind;
  }
}

// A thread's elements of both halves of the state.
struct HalfStates {
  float cosine[64];
  float sine[64];
};

// near + factor * (far turned). kKeysAreRows: of the accumulator, otherwise its columns.
template <bool kKeysAreRows>
__device__ void LoadHalves(const RotaryParameters& p, const FragmentLane& at, int group,
                           const float* near, const float* far, float factor, const Angle* turn,
                           HalfStates& state) {
  LoadState(p.layout, at, group * 64, near, nullptr, 0, state.cosine);
  LoadState(p.layout, at, group * 64, near == nullptr ? nullptr : near + p.half_elements, nullptr,
            0, state.sine);
  if (far == nullptr || factor == 0) {
    return;
  }
#pragma unroll
  for (int i = 0; i < 64; ++i) {
    const StateElement element(p.layout, at, group * 64, i);
    if (element.exists) {
      const Angle angle = turn[kKeysAreRows ? group * 64 + at.row + 8 * ((i >> 1) & 1)
                                            : 8 * (i >> 2) + at.column + (i & 1)];
      const float a = far[element.offset];
      const float b = far[p.half_elements + element.offset];
      state.cosine[i] += factor * (a * angle.cosine + b * angle.sine);
      state.sine[i] += factor * (b * angle.cosine - a * angle.sine);
    }
  }
}

struct Place {
  int segment;
  int head;
  int batch;
  int first;
  int end;
  int64_t pair;
  float far;  // what is left at the segment of the state given at the slice's border

  __device__ double Theta(const RotaryParameters& p, int column) const {
    return column < p.key_size ? p.theta[static_cast<int64_t>(head) * p.key_size + column] : 0.0;
  }

  __device__ int64_t StateOffset(const RotaryParameters& p) const {
    return (pair * p.segments.count + segment) * 2 * p.half_elements;
  }
};

// Everything before the roles part that both kernels do: the block's place, the decay table, and
// the turn of the given state, if any, in `turn`. By all threads.
template <bool kReverse>
__device__ Place Begin(const RotaryParameters& p, float* decay, Angle* turn) {
  const Segments& segments = p.segments;
  const int thread = static_cast<int>(threadIdx.x);
  Place place;
  place.segment = static_cast<int>(blockIdx.x);
  place.head = static_cast<int>(blockIdx.y);
  place.batch = static_cast<int>(blockIdx.z);
  place.first = segments.FirstChunk(place.segment);
  place.end = segments.EndChunk(place.segment);
  place.pair = static_cast<int64_t>(place.batch) * segments.heads + place.head;
  const double slope = segments.slopes[place.head];
  DecayTable(decay).Fill(slope, thread, kBlockThreads);
  const int64_t distance = kReverse ? segments.tokens - segments.EndToken(place.segment)
                                    : static_cast<int64_t>(place.first) * kChunk;
  const bool cut = DocumentStartsIn(segments, place.batch, kReverse ? place.end : 0,
                                    kReverse ? segments.chunks : place.first);
  place.far = cut ? 0.0F : FarDecay(slope, distance);
  if (p.state_in != nullptr && thread < kRotaryColumns) {
    turn[thread] = AngleOf(place.Theta(p, thread), kReverse ? -distance : distance);
  }
  __syncthreads();
  return place;
}

// The angles of the chunks' first tokens, of one column, in the order of the sweep.
template <bool kReverse>
__device__ ChunkAngle FirstAngle(const RotaryParameters& p, const Place& place, int column) {
  const int64_t position =
      kReverse ? static_cast<int64_t>(place.end - 1) * kChunk - p.segments.EndToken(place.segment)
               : 0;
  return ChunkAngle(place.Theta(p, column), position, kReverse ? -kChunk : kChunk);
}

// A tile of a chunk, by one thread.
inline __device__ void LoadTile(const CUtensorMap& map, const Place& place, int chunk,
                                uint64_t* full, uint8_t* tile) {
  for (int panel = 0; panel < 2; ++panel) {
    hopper::LoadBox(&map, full, tile + panel * kPanelBytes, panel * kPanelColumns, place.head,
                    chunk * kChunk, place.batch);
  }
}

// d (+)= the product of two K-major tiles over 128 contracted columns.
template <int kColumns>
__device__ void IssueAlong(uint32_t a, uint32_t b, bool accumulate, float (&d)[kColumns / 2]) {
  const uint64_t left = hopper::OperandDescriptor(a, 0);
  const uint64_t right = hopper::OperandDescriptor(b, 0);
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    const int step = (k / 4 * kPanelBytes + k % 4 * 32) >> 4;
    hopper::Product<kColumns, hopper::Major::kAlong>::FromShared(d, left + step, right + step,
                                                                 accumulate || k > 0);
  }
}

// output^T = state x^T over the 128 columns of each half of the state, rounded on the way; the
// halves have an output each, or one x each and the same output. Moves the state on by `decay`.
// Returns with at most kBuffers products in flight; `between(step)`, for steps 0 to 15, runs under
// them.
template <int kBuffers, typename Between>
__device__ void IssueFromState(HalfStates& state, float decay, uint32_t x, uint32_t sine_x,
                               Between between, float (&output)[32], float (&sine_output)[32]) {
  const bool one = &output == &sine_output;
  uint32_t rounded[kBuffers][4];
#pragma unroll
  for (int step = 0; step < 16; ++step) {
    const bool sine = step >= 8;
    const int k = step % 8;
    auto& operand = rounded[step % kBuffers];
    auto& half = sine ? state.sine : state.cosine;
    if (step >= kBuffers) {
      hopper::ProductsWait<kBuffers - 1>();  // the one that had these registers
    }
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      operand[r] = hopper::PackBfloat16(half[8 * k + 2 * r], half[8 * k + 2 * r + 1]);
    }
    hopper::ProductsBegin();
    hopper::Product<64, hopper::Major::kAlong>::FromRegisters(
        sine ? sine_output : output, operand,
        hopper::OperandDescriptor(sine ? sine_x : x, 0) + ((k / 4 * kPanelBytes + k % 4 * 32) >> 4),
        k > 0 || (sine && one));
    hopper::ProductsCommit();
#pragma unroll
    for (int i = 8 * k; i < 8 * k + 8; ++i) {
      half[i] *= decay;
    }
    between(step);
  }
}

// output^T += z^T scores^T, the scores' rows being the output's tokens.
inline __device__ void IssueScored(const TokenFragments& z, uint32_t scores, float (&output)[32]) {
  const uint64_t right = hopper::OperandDescriptor(scores, 0);
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    hopper::Product<64, hopper::Major::kAlong>::FromRegisters(output, z[k], right + 2 * k, true);
  }
}

// state += fragments times rows of shared memory, over 64 tokens.
inline __device__ void IssueIntoState(const TokenFragments& fragments, uint32_t rows,
                                      float (&state)[64]) {
  const uint64_t right = hopper::OperandDescriptor(rows, kPanelBytes);
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    hopper::Product<128, hopper::Major::kAcross>::FromRegisters(state, fragments[k],
                                                                right + k * (2048 >> 4), true);
  }
}

// A warpgroup's half of a chunk's scores, decayed, as a right operand.
template <bool kReverse>
__device__ void StoreScores(const DecayTable& decay, const FragmentLane& at, int group,
                            uint64_t marks, float (&scores)[16], uint32_t panel) {
  FragmentLane shifted = at;
  shifted.column += 32 * group;
  uint32_t rounded[2][4];
  DecayScores<kReverse>(decay, shifted, marks, scores, rounded);
  const int row = 16 * at.warp + (at.lane & 15);
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    const int piece = 4 * group + 2 * k + (at.lane >> 4);
    hopper::StoreMatrices(panel + PieceOffset(row, piece), rounded[k][0], rounded[k][1],
                          rounded[k][2], rounded[k][3]);
  }
}

// ---- on the host --------------------------------------------------------------------------------

// What a sweep reads and writes, with the widths of X and Y and of Z and the output.
struct RotaryViews {
  HeadsView<const Bf16> x;
  HeadsView<const Bf16> y;
  HeadsView<const Bf16> z;
  HeadsView<Bf16> output;
  int64_t x_width;
  int64_t z_width;
};

inline cudaError_t LaunchRotary(void (*kernel)(RotaryParameters), size_t shared_bytes,
                                const LinearAttentionShape& shape, const RotaryViews& views,
                                RotaryParameters& parameters, cudaStream_t stream) {
  parameters.theta = shape.theta;
  parameters.key_size = static_cast<int>(shape.key_size);
  parameters.half_elements = shape.key_size * shape.value_size;
  return LaunchSegments(kernel, shared_bytes, parameters.segments.count, shape,
                        {{views.x, views.x_width, &parameters.x},
                         {views.y, views.x_width, &parameters.y},
                         {views.z, views.z_width, &parameters.z},
                         {views.output, views.z_width, &parameters.output}},
                        parameters, stream);
}

}  // namespace lasp::kernels::cuda
