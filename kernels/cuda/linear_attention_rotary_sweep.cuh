// The sweeps of linear attention with LRPE, whose states have twice the key size: a cosine half and
// a sine half of each row of keys.
//
// With LA(X, Y, Z) as in linear_attention_sweep.cu, LAr its time reversal, and ~ for rotated rows:
// o = LA(q~, k~, v), dv = LAr(k~, q~, do), dq~ = LA(do, v, k~), dk~ = LAr(v, do, q~). The first two
// rotate what is contracted with the state, the others what the state gives, and turn it back. Each
// math warpgroup owns 64 of the output's columns and the state's elements that these need, both
// halves. There is no room to load more than one chunk ahead.
#pragma once

#include "kernels/cuda/linear_attention_marks.cuh"
#include "kernels/cuda/linear_attention_rotary.cuh"
#include "kernels/cuda/linear_attention_rotary.h"
#include "kernels/cuda/linear_attention_tiles.cuh"
#include "kernels/cuda/tensor_map.h"

namespace lasp::kernels::cuda {

inline constexpr int kRotaryStages = 2;
// States of twice the size leave the loading warps few.
inline constexpr int kRotaryLoadRegisters = 24;
inline constexpr int kRotaryMathRegisters = 240;

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

struct RotaryStage {
  uint8_t x[kTileBytes];
  uint8_t y[kTileBytes];
  uint8_t z[kTileBytes];
};

// What both kernels keep beside their tiles.
struct RotaryControl {
  RotaryTable table;
  alignas(16) Angle chunk[kRotaryStages][kRotaryColumns];
  float decay[DecayTable::kElements];
  uint64_t full[kRotaryStages];
  uint64_t empty[kRotaryStages];
};

enum RotaryBarriers : uint32_t { kRotatedBarrier = 1, kDoneBarrier = 2, kStateBarrier = 3 };

// Chunks in the order of the sweep.
template <bool kReverse>
struct Order {
  int first;
  int end;

  __device__ int At(int i) const { return kReverse ? end - 1 - i : first + i; }
};

// The decays of a chunk's rows: those of the state that they see, and those with which they are
// seen.
template <bool kReverse>
struct ChunkDecay {
  const DecayTable& decay;
  int length;
  int first_mark;
  int last_mark;

  __device__ ChunkDecay(const DecayTable& table, int tokens, uint64_t marks)
      : decay(table), length(tokens), first_mark(FirstMark(marks)), last_mark(LastMark(marks)) {}

  __device__ float Ahead(int token) const { return token < first_mark ? decay[token + 1] : 0.0F; }

  __device__ float Behind(int token) const {
    return token >= last_mark ? decay[length - 1 - token] : 0.0F;
  }

  __device__ float OfState(int token) const { return kReverse ? Behind(token) : Ahead(token); }

  __device__ float IntoState(int token) const { return kReverse ? Ahead(token) : Behind(token); }
};

// One half of a thread's state's elements: near + factor * (far turned).
template <bool kKeysAreRows>
struct HalfStates {
  float cosine[64];
  float sine[64];

  static __device__ int KeyOf(const FragmentLane& at, int group, int i) {
    return kKeysAreRows ? group * 64 + at.row + 8 * ((i >> 1) & 1)
                        : 8 * (i >> 2) + at.column + (i & 1);
  }

  __device__ void Load(const RotaryParameters& p, const FragmentLane& at, int group,
                       const float* near, const float* far, float factor, const Angle* turn) {
    LoadState(p.layout, at, group * 64, near, nullptr, 0, cosine);
    LoadState(p.layout, at, group * 64, near == nullptr ? nullptr : near + p.half_elements, nullptr,
              0, sine);
    if (far == nullptr || factor == 0) {
      return;
    }
#pragma unroll
    for (int i = 0; i < 64; ++i) {
      const StateElement element(p.layout, at, group * 64, i);
      if (element.exists) {
        const Angle angle = turn[KeyOf(at, group, i)];
        const float a = far[element.offset];
        const float b = far[p.half_elements + element.offset];
        cosine[i] += factor * (a * angle.cosine + b * angle.sine);
        sine[i] += factor * (b * angle.cosine - a * angle.sine);
      }
    }
  }

  __device__ void Store(const RotaryParameters& p, const FragmentLane& at, int group,
                        float* to) const {
    StoreState(p.layout, at, group * 64, cosine, to);
    StoreState(p.layout, at, group * 64, sine, to + p.half_elements);
  }
};

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

// Everything before the roles part: tables, barriers, and the turn of the given state, if any, in
// `turn`. By all threads.
template <bool kReverse>
__device__ Place Begin(const RotaryParameters& p, RotaryControl& control, uint32_t releases,
                       Angle* turn) {
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
  DecayTable(control.decay).Fill(slope, thread, kBlockThreads);
  control.table.Fill(p.theta + static_cast<int64_t>(place.head) * p.key_size, p.key_size, thread,
                     kBlockThreads);
  if (thread == 0) {
    for (int i = 0; i < kRotaryStages; ++i) {
      hopper::BarrierInit(&control.full[i], kWarpgroup);
      hopper::BarrierInit(&control.empty[i], releases);
    }
    hopper::FenceBarrierInit();
  }
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

// The loading warpgroup: tiles by its first thread, the angles of the chunk's first token by all.
template <bool kReverse>
__device__ void LoadChunks(const RotaryParameters& p, RotaryStage* stages, RotaryControl& control,
                           const Place& place) {
  const int thread = static_cast<int>(threadIdx.x) - kMathThreads;
  const Order<kReverse> order = {place.first, place.end};
  const int64_t position =
      kReverse ? static_cast<int64_t>(place.end - 1) * kChunk - p.segments.EndToken(place.segment)
               : 0;
  ChunkAngle angle(place.Theta(p, thread), position, kReverse ? -kChunk : kChunk);
  hopper::LowerRegisters<kRotaryLoadRegisters>();
  Ring<kRotaryStages> ring;
  for (int i = 0; i < place.end - place.first; ++i) {
    hopper::BarrierWait(&control.empty[ring.stage], ring.phase ^ 1);
    uint64_t* const full = &control.full[ring.stage];
    control.chunk[ring.stage][thread] = angle.Get();
    angle.Advance();
    if (thread > 0) {
      hopper::BarrierArrive(full);
    } else {
      RotaryStage& stage = stages[ring.stage];
      hopper::BarrierArriveExpect(full, sizeof(stage));
      const int token = order.At(i) * kChunk;
      for (int panel = 0; panel < 2; ++panel) {
        const int column = panel * kPanelColumns;
        const int offset = panel * kPanelBytes;
        hopper::LoadBox(&p.x, full, stage.x + offset, column, place.head, token, place.batch);
        hopper::LoadBox(&p.y, full, stage.y + offset, column, place.head, token, place.batch);
        hopper::LoadBox(&p.z, full, stage.z + offset, column, place.head, token, place.batch);
      }
    }
    ring.Advance();
  }
}

// d (+)= the product of two K-major operands over 128 contracted columns.
inline __device__ void IssueAlong(uint32_t a, uint32_t b, uint32_t b_panel_bytes, bool accumulate,
                                  float (&d)[32]) {
  const uint64_t left = hopper::OperandDescriptor(a, 0);
  const uint64_t right = hopper::OperandDescriptor(b, 0);
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    hopper::Product<64, hopper::Major::kAlong>::FromShared(
        d, left + ((k / 4 * kPanelBytes + k % 4 * 32) >> 4),
        right + ((k / 4 * b_panel_bytes + k % 4 * 32) >> 4), accumulate || k > 0);
  }
}

// d += fragments times rows of shared memory, over 64 tokens.
template <int kColumns>
__device__ void IssueTokens(const uint32_t (&fragments)[4][4], uint32_t rows,
                            float (&d)[kColumns / 2]) {
  const uint64_t right = hopper::OperandDescriptor(rows, kPanelBytes);
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    hopper::Product<kColumns, hopper::Major::kAcross>::FromRegisters(d, fragments[k],
                                                                     right + k * (2048 >> 4), true);
  }
}

// ---- on the host --------------------------------------------------------------------------------

struct RotaryView {
  HeadsView<const Bf16> view;
  int64_t width;
};

struct RotaryViews {
  RotaryView x;
  RotaryView y;
  RotaryView z;
  RotaryView output;
};

template <typename Kernel>
cudaError_t LaunchRotary(Kernel kernel, size_t shared_bytes, const LinearAttentionShape& shape,
                         const RotaryViews& views, RotaryParameters& parameters,
                         cudaStream_t stream) {
  const auto map = [&](const RotaryView& view, CUtensorMap* to) {
    return MakeHeadsMap(view.view, shape.batch, shape.tokens, shape.heads, view.width, kChunk, to);
  };
  cudaError_t error = map(views.x, &parameters.x);
  if (error == cudaSuccess) {
    error = map(views.y, &parameters.y);
  }
  if (error == cudaSuccess) {
    error = map(views.z, &parameters.z);
  }
  if (error == cudaSuccess) {
    error = map(views.output, &parameters.output);
  }
  if (error == cudaSuccess) {
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(shared_bytes));
  }
  if (error != cudaSuccess) {
    return error;
  }
  parameters.theta = shape.theta;
  parameters.key_size = static_cast<int>(shape.key_size);
  parameters.half_elements = shape.key_size * shape.value_size;
  const dim3 grid(static_cast<unsigned>(parameters.segments.count),
                  static_cast<unsigned>(shape.heads), static_cast<unsigned>(shape.batch));
  kernel<<<grid, kBlockThreads, shared_bytes, stream>>>(parameters);
  return cudaGetLastError();
}

}  // namespace lasp::kernels::cuda
