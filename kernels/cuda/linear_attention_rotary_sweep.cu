// The sweeps of linear attention with LRPE, whose states have twice the key size: a cosine half and
// a sine half of each row of keys.
//
// With LA(X, Y, Z) as in linear_attention_sweep.cu, LAr its time reversal, and ~ for rotated rows:
// o = LA(q~, k~, v), dv = LAr(k~, q~, do), dq~ = LA(do, v, k~), dk~ = LAr(v, do, q~). The first two
// rotate what is contracted with the state, the others what the state gives, and turn it back. Each
// math warpgroup owns 64 of the output's columns and the state's elements that these need, both
// halves. There is no room to load more than one chunk ahead.
#include "kernels/cuda/linear_attention_rotary.cuh"
#include "kernels/cuda/linear_attention_rotary.h"
#include "kernels/cuda/linear_attention_tiles.cuh"
#include "kernels/cuda/tensor_map.h"

namespace lasp::kernels::cuda {
namespace {

constexpr int kStages = 2;
// States of twice the size leave the loading warps few.
constexpr int kRotaryLoadRegisters = 24;
constexpr int kRotaryMathRegisters = 240;

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

struct Stage {
  uint8_t x[kTileBytes];
  uint8_t y[kTileBytes];
  uint8_t z[kTileBytes];
};

// What both kernels keep beside their tiles.
struct RotaryControl {
  RotaryTable table;
  alignas(16) Angle chunk[kStages][kRotaryColumns];
  float decay[DecayTable::kElements];
  uint64_t full[kStages];
  uint64_t empty[kStages];
};

struct KeysMemory {
  alignas(1024) Stage stages[kStages];
  uint8_t x_sine[kTileBytes];
  uint8_t y_sine[kTileBytes];
  uint8_t state[2 * kStateBytes];  // 128 rows; panels of the cosine half, then of the sine half
  RotaryControl control;
};

struct ValuesMemory {
  alignas(1024) Stage stages[kStages];
  uint8_t z_sine[kTileBytes];
  uint8_t output[kTileBytes];
  uint8_t state[2 * kStateBytes];  // 256 rows: the cosine half, then the sine half
  RotaryControl control;
};

enum NamedBarriers : uint32_t { kRotatedBarrier = 1, kDoneBarrier = 2, kStateBarrier = 3 };

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

// Whether a document starts between the slice's border that the given state comes from and the
// segment. By all threads.
template <bool kReverse>
__device__ bool DocumentStartsBetween(const Segments& segments, int batch, int first, int end) {
  if (segments.marks == nullptr) {
    return false;
  }
  bool starts = false;
  const int to = kReverse ? segments.chunks : first;
  for (int chunk = (kReverse ? end : 0) + static_cast<int>(threadIdx.x); chunk < to;
       chunk += kBlockThreads) {
    starts = starts || MarksOf(segments, batch, chunk) != 0;
  }
  return __syncthreads_or(static_cast<int>(starts)) != 0;
}

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
    for (int i = 0; i < kStages; ++i) {
      hopper::BarrierInit(&control.full[i], kWarpgroup);
      hopper::BarrierInit(&control.empty[i], releases);
    }
    hopper::FenceBarrierInit();
  }
  const int64_t distance = kReverse ? segments.tokens - segments.EndToken(place.segment)
                                    : static_cast<int64_t>(place.first) * kChunk;
  const bool cut = DocumentStartsBetween<kReverse>(segments, place.batch, place.first, place.end);
  place.far = cut ? 0.0F : FarDecay(slope, distance);
  if (p.state_in != nullptr && thread < kRotaryColumns) {
    turn[thread] = AngleOf(place.Theta(p, thread), kReverse ? -distance : distance);
  }
  __syncthreads();
  return place;
}

// The loading warpgroup: tiles by its first thread, the angles of the chunk's first token by all.
template <bool kReverse>
__device__ void LoadChunks(const RotaryParameters& p, Stage* stages, RotaryControl& control,
                           const Place& place) {
  const int thread = static_cast<int>(threadIdx.x) - kMathThreads;
  const Order<kReverse> order = {place.first, place.end};
  const int64_t position =
      kReverse ? static_cast<int64_t>(place.end - 1) * kChunk - p.segments.EndToken(place.segment)
               : 0;
  ChunkAngle angle(place.Theta(p, thread), position, kReverse ? -kChunk : kChunk);
  hopper::LowerRegisters<kRotaryLoadRegisters>();
  Ring<kStages> ring;
  for (int i = 0; i < place.end - place.first; ++i) {
    hopper::BarrierWait(&control.empty[ring.stage], ring.phase ^ 1);
    uint64_t* const full = &control.full[ring.stage];
    control.chunk[ring.stage][thread] = angle.Get();
    angle.Advance();
    if (thread > 0) {
      hopper::BarrierArrive(full);
    } else {
      Stage& stage = stages[ring.stage];
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
__device__ void IssueAlong(uint32_t a, uint32_t b, uint32_t b_panel_bytes, bool accumulate,
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

// ---- rotated keys: o and dv ---------------------------------------------------------------------

template <bool kReverse>
__global__ void __launch_bounds__(kBlockThreads, 1)
    RotaryKeysKernel(const __grid_constant__ RotaryParameters p) {
  extern __shared__ __align__(1024) uint8_t shared[];
  auto& memory = *reinterpret_cast<KeysMemory*>(shared);
  RotaryControl& control = memory.control;
  const Segments& segments = p.segments;
  Angle* const turn = reinterpret_cast<Angle*>(memory.state);
  // A stage is given back by one thread of each math warpgroup: its z holds the output until that
  // is stored.
  const Place place = Begin<kReverse>(p, control, 2, turn);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread >= kMathThreads) {
    LoadChunks<kReverse>(p, memory.stages, control, place);
    return;
  }
  hopper::RaiseRegisters<kRotaryMathRegisters>();
  const int group = UniformWarpgroup();
  const bool elected = thread % kWarpgroup == 0;
  const FragmentLane at(thread);
  const Order<kReverse> order = {place.first, place.end};
  const DecayTable decay(control.decay);

  HalfStates<false> state;
  state.Load(p, at, group,
             p.segment_states == nullptr ? nullptr : p.segment_states + place.StateOffset(p),
             p.state_in == nullptr ? nullptr : p.state_in + place.pair * 2 * p.half_elements,
             place.far, turn);
  if (p.segment_starts != nullptr) {
    state.Store(p, at, group, p.segment_starts + place.StateOffset(p));
  }
  hopper::NamedBarrier(kStateBarrier, kMathThreads);  // the turn is read
  const uint32_t state_panels = hopper::SharedAddress(memory.state);
  const uint32_t own_rows = state_panels + static_cast<uint32_t>(group * 64 * 128);
  StoreRounded(state.cosine, at, group * 64, state_panels, kStatePanelBytes);
  StoreRounded(state.sine, at, group * 64, state_panels + kStateBytes, kStatePanelBytes);

  Ring<kStages> ring;
  for (int i = 0; i < place.end - place.first; ++i) {
    const int chunk = order.At(i);
    const int opaque = Opaque(thread);
    const FragmentLane here(opaque);
    Stage& stage = memory.stages[ring.stage];
    const uint64_t marks = MarksOf(segments, place.batch, chunk);
    const ChunkDecay<kReverse> weight(decay, segments.Length(chunk), marks);
    hopper::BarrierWait(&control.full[ring.stage], ring.phase);
    uint8_t* const tiles[] = {stage.x, stage.y};
    uint8_t* const sines[] = {memory.x_sine, memory.y_sine};
    RotateTiles(control.table, control.chunk[ring.stage], tiles, sines, opaque);
    hopper::FenceAsyncShared();
    hopper::NamedBarrier(kRotatedBarrier, kMathThreads);
    if (elected && i > 0) {
      hopper::StoreWaitRead<0>();
      hopper::BarrierArrive(&control.empty[ring.stage ^ 1]);
    }

    const uint32_t x = hopper::SharedAddress(stage.x);
    const uint32_t y = hopper::SharedAddress(stage.y);
    const uint32_t x_sine = hopper::SharedAddress(memory.x_sine);
    const uint32_t y_sine = hopper::SharedAddress(memory.y_sine);
    float scores[32];
    float output[32];
    hopper::HoldRegisters(scores);
    hopper::HoldRegisters(output);
    hopper::ProductsBegin();
    IssueAlong(x, y, kPanelBytes, false, scores);
    IssueAlong(x_sine, y_sine, kPanelBytes, true, scores);
    hopper::ProductsCommit();
    IssueAlong(x, own_rows, kStatePanelBytes, false, output);
    IssueAlong(x_sine, own_rows + kStateBytes, kStatePanelBytes, true, output);
    hopper::ProductsCommit();
    hopper::ProductsWait<1>();
    hopper::HoldRegisters(scores);
    uint32_t operand[4][4];
    DecayScores<kReverse>(decay, here, marks, scores, operand);
    const float state_decay = marks == 0 ? decay[weight.length] : 0.0F;
    Scale(state_decay, state.cosine);
    Scale(state_decay, state.sine);
    const uint32_t z = hopper::SharedAddress(stage.z + group * kPanelBytes);
    TokenFragments values;
    LoadTransposed(z, here, values);
    hopper::ProductsWait<0>();
    hopper::HoldRegisters(output);
    ScaleRows(weight.OfState(here.row), weight.OfState(here.row + 8), output);

    hopper::HoldRegisters(output);
    hopper::ProductsBegin();
    IssueTokens<64>(operand, z, output);
    hopper::ProductsCommit();
    ScaleTokens(here, [&](int token) { return weight.IntoState(token); }, values);
    hopper::ProductsWait<0>();
    hopper::HoldRegisters(output);
    hopper::HoldRegisters(state.cosine);
    hopper::HoldRegisters(state.sine);
    hopper::ProductsBegin();
    IssueTokens<128>(values, y, state.cosine);
    IssueTokens<128>(values, y_sine, state.sine);
    hopper::ProductsCommit();
    // The last reads of z lie before the products that are complete.
    StoreRounded(output, here, 0, z, kPanelBytes);
    hopper::ProductsWait<0>();
    hopper::HoldRegisters(state.cosine);
    hopper::HoldRegisters(state.sine);
    StoreRounded(state.cosine, here, group * 64, state_panels, kStatePanelBytes);
    StoreRounded(state.sine, here, group * 64, state_panels + kStateBytes, kStatePanelBytes);
    hopper::FenceAsyncShared();
    hopper::NamedBarrier(kDoneBarrier, kMathThreads);
    if (elected) {
      hopper::StoreBox(&p.output, stage.z + group * kPanelBytes, group * kPanelColumns, place.head,
                       chunk * kChunk, place.batch);
      hopper::StoreCommit();
    }
    ring.Advance();
  }
  if (elected) {
    hopper::StoreWaitRead<0>();
  }
}

// ---- rotated values: dq and dk ------------------------------------------------------------------

template <bool kReverse>
__global__ void __launch_bounds__(kBlockThreads, 1)
    RotaryValuesKernel(const __grid_constant__ RotaryParameters p) {
  extern __shared__ __align__(1024) uint8_t shared[];
  auto& memory = *reinterpret_cast<ValuesMemory*>(shared);
  RotaryControl& control = memory.control;
  const Segments& segments = p.segments;
  constexpr uint32_t kPanel = 2 * kStatePanelBytes;  // of the state's 256 rows
  constexpr uint32_t kSineRows = 128 * 128;          // where the sine half starts in a panel
  Angle* const turn = reinterpret_cast<Angle*>(memory.state);
  const Place place = Begin<kReverse>(p, control, kMathThreads / 32, turn);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread >= kMathThreads) {
    LoadChunks<kReverse>(p, memory.stages, control, place);
    return;
  }
  hopper::RaiseRegisters<kRotaryMathRegisters>();
  const int group = UniformWarpgroup();
  const bool elected = thread % kWarpgroup == 0;
  const FragmentLane at(thread);
  const Order<kReverse> order = {place.first, place.end};
  const DecayTable decay(control.decay);

  HalfStates<true> state;
  state.Load(p, at, group,
             p.segment_states == nullptr ? nullptr : p.segment_states + place.StateOffset(p),
             p.state_in == nullptr ? nullptr : p.state_in + place.pair * 2 * p.half_elements,
             place.far, turn);
  hopper::NamedBarrier(kStateBarrier, kMathThreads);  // the turn is read
  const uint32_t state_panels = hopper::SharedAddress(memory.state);
  const uint32_t own_rows = state_panels + static_cast<uint32_t>(group * 64 * 128);
  StoreRounded(state.cosine, at, group * 64, state_panels, kPanel);
  StoreRounded(state.sine, at, 128 + group * 64, state_panels, kPanel);

  Ring<kStages> ring;
  for (int i = 0; i < place.end - place.first; ++i) {
    const int chunk = order.At(i);
    const int opaque = Opaque(thread);
    const FragmentLane here(opaque);
    Stage& stage = memory.stages[ring.stage];
    const Angle* const angles = control.chunk[ring.stage];
    const uint64_t marks = MarksOf(segments, place.batch, chunk);
    const ChunkDecay<kReverse> weight(decay, segments.Length(chunk), marks);
    hopper::BarrierWait(&control.full[ring.stage], ring.phase);
    uint8_t* const tiles[] = {stage.z};
    uint8_t* const sine_tiles[] = {memory.z_sine};
    RotateTiles(control.table, angles, tiles, sine_tiles, opaque);
    hopper::FenceAsyncShared();
    if (elected) {
      hopper::StoreWaitRead<0>();  // of the chunk before: frees the output's tile
    }
    hopper::NamedBarrier(kRotatedBarrier, kMathThreads);

    const uint32_t x = hopper::SharedAddress(stage.x);
    const uint32_t y = hopper::SharedAddress(stage.y);
    const uint32_t z = hopper::SharedAddress(stage.z + group * kPanelBytes);
    const uint32_t z_sine = hopper::SharedAddress(memory.z_sine + group * kPanelBytes);
    float scores[32];
    float output[32];
    hopper::HoldRegisters(scores);
    hopper::HoldRegisters(output);
    hopper::ProductsBegin();
    IssueAlong(x, y, kPanelBytes, false, scores);
    hopper::ProductsCommit();
    IssueAlong(x, own_rows, kPanel, false, output);
    hopper::ProductsCommit();
    hopper::ProductsWait<1>();
    hopper::HoldRegisters(scores);
    uint32_t operand[4][4];
    DecayScores<kReverse>(decay, here, marks, scores, operand);
    hopper::ProductsWait<0>();
    hopper::HoldRegisters(output);
    ScaleRows(weight.OfState(here.row), weight.OfState(here.row + 8), output);

    // The cosine half's output, then the sine half's, each turned back. The first waits rounded:
    // there are no registers for both.
    hopper::HoldRegisters(output);
    hopper::ProductsBegin();
    IssueTokens<64>(operand, z, output);
    hopper::ProductsCommit();
    const float state_decay = marks == 0 ? decay[weight.length] : 0.0F;
    Scale(state_decay, state.cosine);
    Scale(state_decay, state.sine);
    hopper::ProductsWait<0>();
    hopper::HoldRegisters(output);
    MultiplyByAngles<false>(control.table, angles, here, group * kPanelColumns, output);
    uint32_t cosine_output[16];
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      cosine_output[j] = hopper::PackBfloat16(output[2 * j], output[2 * j + 1]);
    }
    hopper::HoldRegisters(output);
    hopper::ProductsBegin();
    IssueAlong(x, own_rows + kSineRows, kPanel, false, output);
    hopper::ProductsCommit();
    hopper::ProductsWait<0>();
    hopper::HoldRegisters(output);
    ScaleRows(weight.OfState(here.row), weight.OfState(here.row + 8), output);
    hopper::HoldRegisters(output);
    hopper::ProductsBegin();
    IssueTokens<64>(operand, z_sine, output);
    hopper::ProductsCommit();
    hopper::ProductsWait<0>();
    hopper::HoldRegisters(output);
    MultiplyByAngles<true>(control.table, angles, here, group * kPanelColumns, output);
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      output[2 * j] += hopper::LowOf(cosine_output[j]);
      output[2 * j + 1] += hopper::HighOf(cosine_output[j]);
    }
    uint8_t* const staged = memory.output + group * kPanelBytes;
    StoreRounded(output, here, 0, hopper::SharedAddress(staged), kPanelBytes);

    TokenFragments cosines;
    TokenFragments sines;
    LoadTransposed(z, here, cosines);
    LoadTransposed(z_sine, here, sines);
    const auto weight_of = [&](int token) { return weight.IntoState(token); };
    ScaleTokens(here, weight_of, cosines);
    ScaleTokens(here, weight_of, sines);
    hopper::HoldRegisters(state.cosine);
    hopper::HoldRegisters(state.sine);
    hopper::ProductsBegin();
    IssueTokens<128>(cosines, y, state.cosine);
    IssueTokens<128>(sines, y, state.sine);
    hopper::ProductsCommit();
    hopper::ProductsWait<0>();
    hopper::HoldRegisters(state.cosine);
    hopper::HoldRegisters(state.sine);
    if (here.lane == 0) {
      hopper::BarrierArrive(&control.empty[ring.stage]);
    }
    StoreRounded(state.cosine, here, group * 64, state_panels, kPanel);
    StoreRounded(state.sine, here, 128 + group * 64, state_panels, kPanel);
    hopper::FenceAsyncShared();
    hopper::NamedBarrier(kDoneBarrier, kMathThreads);
    if (elected) {
      hopper::StoreBox(&p.output, staged, group * kPanelColumns, place.head, chunk * kChunk,
                       place.batch);
      hopper::StoreCommit();
    }
    ring.Advance();
  }
  if (elected) {
    hopper::StoreWaitRead<0>();
  }
}

// ---- launchers ----------------------------------------------------------------------------------

struct View {
  HeadsView<const Bf16> view;
  int64_t width;
};

struct Views {
  View x;
  View y;
  View z;
  View output;
};

template <typename Kernel>
cudaError_t Launch(Kernel kernel, size_t shared_bytes, const LinearAttentionShape& shape,
                   const Views& views, RotaryParameters& parameters, cudaStream_t stream) {
  const auto map = [&](const View& view, CUtensorMap* to) {
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

}  // namespace

cudaError_t RotaryOutput(const OutputArgs& args, cudaStream_t stream) {
  RotaryParameters parameters{};
  const LinearAttentionShape& shape = args.problem.shape;
  if (const cudaError_t error = PlanSegments(args.problem, &parameters.segments);
      error != cudaSuccess) {
    return error;
  }
  const bool split = parameters.segments.count > 1;
  if ((split && args.segment_states == nullptr) || args.state_out != nullptr) {
    return cudaErrorInvalidValue;
  }
  const auto keys = static_cast<int>(shape.key_size);
  const auto values = static_cast<int>(shape.value_size);
  parameters.layout = StateLayout::ValuesByKeys(keys, values);
  parameters.segment_states = split ? args.segment_states : nullptr;
  parameters.state_in = args.state_in;
  parameters.segment_starts = args.segment_starts;
  return Launch(RotaryKeysKernel<false>, sizeof(KeysMemory), shape,
                {{args.q, shape.key_size},
                 {args.k, shape.key_size},
                 {args.v, shape.value_size},
                 {args.output, shape.value_size}},
                parameters, stream);
}

cudaError_t RotaryQueryGradient(const QueryGradientArgs& args, cudaStream_t stream) {
  RotaryParameters parameters{};
  const LinearAttentionShape& shape = args.problem.shape;
  if (const cudaError_t error = PlanSegments(args.problem, &parameters.segments);
      error != cudaSuccess) {
    return error;
  }
  parameters.layout = StateLayout::KeysByValues(static_cast<int>(shape.key_size),
                                                static_cast<int>(shape.value_size));
  parameters.segment_states = args.segment_starts;
  return Launch(RotaryValuesKernel<false>, sizeof(ValuesMemory), shape,
                {{args.output_gradient, shape.value_size},
                 {args.v, shape.value_size},
                 {args.k, shape.key_size},
                 {args.q_gradient, shape.key_size}},
                parameters, stream);
}

cudaError_t RotaryKeyValueGradient(const KeyValueGradientArgs& args, cudaStream_t stream) {
  RotaryParameters parameters{};
  const LinearAttentionShape& shape = args.problem.shape;
  if (const cudaError_t error = PlanSegments(args.problem, &parameters.segments);
      error != cudaSuccess) {
    return error;
  }
  const bool split = parameters.segments.count > 1;
  if (split && args.segment_state_gradients == nullptr) {
    return cudaErrorInvalidValue;
  }
  parameters.segment_states = split ? args.segment_state_gradients : nullptr;
  parameters.state_in = args.state_gradient_in;
  const auto keys = static_cast<int>(shape.key_size);
  const auto values = static_cast<int>(shape.value_size);
  parameters.layout = StateLayout::ValuesByKeys(keys, values);
  if (const cudaError_t error = Launch(RotaryKeysKernel<true>, sizeof(KeysMemory), shape,
                                       {{args.k, shape.key_size},
                                        {args.q, shape.key_size},
                                        {args.output_gradient, shape.value_size},
                                        {args.v_gradient, shape.value_size}},
                                       parameters, stream);
      error != cudaSuccess) {
    return error;
  }
  parameters.layout = StateLayout::KeysByValues(keys, values);
  return Launch(RotaryValuesKernel<true>, sizeof(ValuesMemory), shape,
                {{args.v, shape.value_size},
                 {args.output_gradient, shape.value_size},
                 {args.q, shape.key_size},
                 {args.k_gradient, shape.key_size}},
                parameters, stream);
}

}  // namespace lasp::kernels::cuda
