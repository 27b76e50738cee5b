// The states of linear attention: what each segment adds, the states at the segments' borders, and
// the hops between ranks.
#include <algorithm>

#include "kernels/cuda/linear_attention.h"
#include "kernels/cuda/linear_attention_rotary.cuh"
#include "kernels/cuda/linear_attention_rotary.h"
#include "kernels/cuda/linear_attention_segment_reach.cuh"
#include "kernels/cuda/linear_attention_segments.h"
#include "kernels/cuda/linear_attention_tiles.cuh"
#include "kernels/cuda/tensor_map.h"

namespace lasp::kernels::cuda {
namespace {

// ---- what a segment adds to the state -----------------------------------------------------------

constexpr int kStages = 6;

struct SegmentStateParameters {
  CUtensorMap keys;    // k, or q for the gradient
  CUtensorMap values;  // v, or do
  Segments segments;
  int first_segment;
  int key_size;
  int value_size;
  float* states;  // [batch, heads, segments, key_size, value_size]
};

struct SegmentStateMemory {
  alignas(1024) uint8_t keys[kStages][kTileBytes];
  uint8_t values[kStages][kTileBytes];
  float decay[DecayTable::kElements];
  uint64_t full[kStages];
  uint64_t empty[kStages];
  int chunks;
};

// kGradient false: sum over the segment's tokens j of lambda^{end-1-j} k_j^T v_j, from the last
// chunk back; true: sum of lambda^{i+1} q_i^T do_i, i from the segment's start, from the first
// chunk on. Going away from the border, only the tokens' weights shrink; the sum itself is never
// scaled. The kernels that follow start where this one ends, and find that part of their inputs in
// the cache.
template <bool kGradient>
__global__ void __launch_bounds__(kBlockThreads, 1)
    SegmentStateKernel(const __grid_constant__ SegmentStateParameters parameters) {
  extern __shared__ __align__(1024) uint8_t shared[];
  auto& memory = *reinterpret_cast<SegmentStateMemory*>(shared);
  const Segments& segments = parameters.segments;
  const int segment = static_cast<int>(blockIdx.x) + parameters.first_segment;
  const int head = static_cast<int>(blockIdx.y);
  const int batch = static_cast<int>(blockIdx.z);
  const int thread = static_cast<int>(threadIdx.x);
  const double slope = segments.slopes[head];
  DecayTable decay(memory.decay);
  decay.Fill(slope, thread, kBlockThreads);
  if (thread == 0) {
    for (int i = 0; i < kStages; ++i) {
      hopper::BarrierInit(&memory.full[i], 1);
      hopper::BarrierInit(&memory.empty[i], kMathThreads / 32);
    }
    hopper::FenceBarrierInit();
  }
  const int count = ChunksThatCount<kGradient>(segments, segment, batch, slope, &memory.chunks);
  __syncthreads();
  const int first = segments.FirstChunk(segment);
  const int end = segments.EndChunk(segment);
  const auto chunk_at = [&](int i) { return kGradient ? first + i : end - 1 - i; };

  if (thread >= kMathThreads) {
    hopper::LowerRegisters<kLoadRegisters>();
    if (thread == kMathThreads) {
      Ring<kStages> ring;
      for (int i = 0; i < count; ++i) {
        hopper::BarrierWait(&memory.empty[ring.stage], ring.phase ^ 1);
        uint64_t* const full = &memory.full[ring.stage];
        hopper::BarrierArriveExpect(full, 2 * kTileBytes);
        const int token = chunk_at(i) * kChunk;
        for (int panel = 0; panel < 2; ++panel) {
          hopper::LoadBox(&parameters.keys, full, memory.keys[ring.stage] + panel * kPanelBytes,
                          panel * kPanelColumns, head, token, batch);
          hopper::LoadBox(&parameters.values, full, memory.values[ring.stage] + panel * kPanelBytes,
                          panel * kPanelColumns, head, token, batch);
        }
        ring.Advance();
      }
    }
    return;
  }

  hopper::RaiseRegisters<kMathRegisters>();
  const int group = UniformWarpgroup();
  const FragmentLane at(thread);
  const int64_t end_token = segments.EndToken(segment);
  const auto slope_log2 = static_cast<float>(-slope * 1.4426950408889634);
  float state[64];
#pragma unroll
  for (int i = 0; i < 64; ++i) {
    state[i] = 0;
  }
  // The chunk's values, weighted; nothing of a chunk past the last.
  const auto prepare = [&](int i, const Ring<kStages>& ring, TokenFragments& values) {
    const bool exists = i < count;
    const int chunk = chunk_at(exists ? i : count - 1);
    const int length = segments.Length(chunk);
    const uint64_t marks = MarksOf(segments, batch, chunk);
    const int64_t distance = kGradient ? static_cast<int64_t>(chunk - first) * kChunk
                                       : end_token - static_cast<int64_t>(chunk) * kChunk - length;
    const float far = exists ? exp2f(slope_log2 * static_cast<float>(distance)) : 0.0F;
    const int bound = kGradient ? FirstMark(marks) : LastMark(marks);
    if (exists) {
      hopper::BarrierWait(&memory.full[ring.stage], ring.phase);
    }
    LoadTransposed(hopper::SharedAddress(memory.values[ring.stage] + group * kPanelBytes), at,
                   values);
    ScaleTokens(
        at,
        [&](int token) {
          const bool seen = kGradient ? token < bound : token >= bound;
          const float weight = decay[kGradient ? token + 1 : length - 1 - token];
          return seen ? weight * far : 0.0F;
        },
        values);
  };
  const auto issue = [&](const Ring<kStages>& ring, const TokenFragments& values) {
    const uint64_t keys =
        hopper::OperandDescriptor(hopper::SharedAddress(memory.keys[ring.stage]), kPanelBytes);
    hopper::ProductsBegin();
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      hopper::Product<128, hopper::Major::kAcross>::FromRegisters(state, values[k],
                                                                  keys + k * (2048 >> 4), true);
    }
    hopper::ProductsCommit();
  };
  const auto release = [&](const Ring<kStages>& ring) {
    if (at.lane == 0) {
      hopper::BarrierArrive(&memory.empty[ring.stage]);
    }
  };
  // Two chunks at a time: the second is prepared while the first is multiplied.
  Ring<kStages> ring;
  for (int i = 0; i < count; i += 2) {
    TokenFragments even;
    TokenFragments odd;
    Ring<kStages> next = ring;
    if (i + 1 < count) {
      next.Advance();
    }
    prepare(i, ring, even);
    issue(ring, even);
    prepare(i + 1, next, odd);
    issue(next, odd);
    hopper::ProductsWait<0>();
    hopper::HoldRegisters(state);
    release(ring);
    release(next);
    ring = next;
    ring.Advance();
  }
  const StateLayout layout = StateLayout::ValuesByKeys(parameters.key_size, parameters.value_size);
  const int64_t pair = static_cast<int64_t>(batch) * segments.heads + head;
  StoreState(layout, at, group * 64, state,
             parameters.states +
                 (pair * segments.count + segment) * parameters.key_size * parameters.value_size);
}

// ---- the states at the segments' borders --------------------------------------------------------

constexpr int kScanThreads = 256;

__device__ float4 MultiplyAdd(float4 x, float factor, float4 addend) {
  return {fmaf(x.x, factor, addend.x), fmaf(x.y, factor, addend.y), fmaf(x.z, factor, addend.z),
          fmaf(x.w, factor, addend.w)};
}

// Four neighbours in a row of a state; with LRPE also those of the same row's sine half.
template <bool kRotary>
struct Elements {
  static constexpr int kParts = kRotary ? 2 : 1;

  float4 parts[kParts];

  static __device__ Elements Zero() {
    Elements zero;
    for (int i = 0; i < kParts; ++i) {
      zero.parts[i] = make_float4(0, 0, 0, 0);
    }
    return zero;
  }

  // `half_size` is the distance of the halves.
  static __device__ Elements Load(const float* from, int64_t half_size) {
    Elements elements;
    for (int i = 0; i < kParts; ++i) {
      elements.parts[i] = *reinterpret_cast<const float4*>(from + i * half_size);
    }
    return elements;
  }

  __device__ void Store(float* to, int64_t half_size) const {
    for (int i = 0; i < kParts; ++i) {
      *reinterpret_cast<float4*>(to + i * half_size) = parts[i];
    }
  }

  // factor * (this, its origin moved ahead by the angle) + addend
  __device__ Elements Move(Angle angle, float factor, const Elements& addend) const {
    if constexpr (kRotary) {
      const float cosine = factor * angle.cosine;
      const float sine = factor * angle.sine;
      return {MultiplyAdd(parts[1], sine, MultiplyAdd(parts[0], cosine, addend.parts[0])),
              MultiplyAdd(parts[0], -sine, MultiplyAdd(parts[1], cosine, addend.parts[1]))};
    } else {
      return {MultiplyAdd(parts[0], factor, addend.parts[0])};
    }
  }
};

// Which elements of a state a thread has: [rows, width] of a half, all of a state without LRPE.
struct ElementPlace {
  int64_t pair;
  int head;
  int batch;
  int64_t element;
  bool active;

  __device__ ElementPlace(const Segments& segments, int64_t half_size)
      : pair(blockIdx.y),
        head(static_cast<int>(pair % segments.heads)),
        batch(static_cast<int>(pair / segments.heads)),
        element(4 * (static_cast<int64_t>(blockIdx.x) * kScanThreads + threadIdx.x)),
        active(element < half_size) {}
};

struct MoveParameters {
  Segments segments;
  const double* theta;  // [heads, key_size] or null
  int64_t half_size;    // elements of a half of a state, of all of it without LRPE
  int key_size;
  int value_size;

  // The angle by which an origin moves, ahead or back, over some tokens.
  template <bool kGradient>
  __device__ Angle AngleOver(const ElementPlace& at, int64_t tokens) const {
    const double row_theta =
        theta[static_cast<int64_t>(at.head) * key_size + at.element / value_size];
    return AngleOf(row_theta, kGradient ? -tokens : tokens);
  }
};

// Whether a document starts in chunks [begin, end). By all threads of the block.
__device__ bool DocumentStartsIn(const Segments& segments, int batch, int begin, int end) {
  if (segments.marks == nullptr) {
    return false;
  }
  bool starts = false;
  for (int chunk = begin + static_cast<int>(threadIdx.x); chunk < end; chunk += kScanThreads) {
    starts = starts || MarksOf(segments, batch, chunk) != 0;
  }
  return __syncthreads_or(static_cast<int>(starts)) != 0;
}

// Over the segments in the order of the recurrence: each one's local state is replaced by what the
// segments before (after) it leave; `total`, if wanted, gets the slice's.
template <bool kGradient, bool kRotary>
__global__ void __launch_bounds__(kScanThreads)
    ScanKernel(const MoveParameters move, float* states, float* total) {
  using State = Elements<kRotary>;
  const Segments& segments = move.segments;
  const ElementPlace at(segments, move.half_size);
  const double slope = segments.slopes[at.head];
  const int count = segments.count;
  const int64_t elements = move.half_size * State::kParts;
  const int64_t whole = static_cast<int64_t>(segments.segment_chunks) * kChunk;
  const int64_t rest =
      segments.tokens - static_cast<int64_t>(segments.FirstChunk(count - 1)) * kChunk;
  Angle whole_angle = {1, 0};
  Angle rest_angle = {1, 0};
  if constexpr (kRotary) {
    if (at.active) {
      whole_angle = move.AngleOver<kGradient>(at, whole);
      rest_angle = move.AngleOver<kGradient>(at, rest);
    }
  }
  const float whole_factor = FarDecay(slope, whole);
  const float rest_factor = FarDecay(slope, rest);
  const auto segment_of = [&](int i) { return kGradient ? count - 1 - i : i; };
  float* const own = states + at.pair * count * elements + at.element;
  const auto local_of = [&](int i) {
    // The last in order adds only to the slice's own state.
    const bool wanted = at.active && (i < count - 1 || (i < count && total != nullptr));
    return wanted ? State::Load(own + segment_of(i) * elements, move.half_size) : State::Zero();
  };
  // A few segments' loads are in flight, ahead of the stores.
  constexpr int kAhead = 4;
  State ahead[kAhead];
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    ahead[i] = local_of(i);
  }
  State running = State::Zero();
  for (int base = 0; base < count; base += kAhead) {
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const int i = base + j;
      if (i >= count) {
        break;
      }
      const int segment = segment_of(i);
      const bool starts = DocumentStartsIn(segments, at.batch, segments.FirstChunk(segment),
                                           segments.EndChunk(segment));
      const State local = ahead[j];
      ahead[j] = local_of(i + kAhead);
      if (at.active) {
        running.Store(own + segment * elements, move.half_size);
      }
      const bool last = segment == count - 1;
      running = running.Move(last ? rest_angle : whole_angle,
                             starts ? 0.0F : (last ? rest_factor : whole_factor), local);
    }
  }
  if (at.active && total != nullptr) {
    running.Store(total + at.pair * elements + at.element, move.half_size);
  }
}

// ---- the hops between ranks ---------------------------------------------------------------------

template <bool kGradient, bool kRotary>
__global__ void __launch_bounds__(kScanThreads)
    HopKernel(const MoveParameters move, const float* in, const float* local, float* out) {
  using State = Elements<kRotary>;
  const Segments& segments = move.segments;
  const ElementPlace at(segments, move.half_size);
  const bool starts = DocumentStartsIn(segments, at.batch, 0, segments.chunks);
  if (!at.active) {
    return;
  }
  const int64_t offset = at.pair * move.half_size * State::kParts + at.element;
  State state = State::Load(local + offset, move.half_size);
  const float factor = starts ? 0.0F : FarDecay(segments.slopes[at.head], segments.tokens);
  if (in != nullptr && factor != 0) {
    Angle angle = {1, 0};
    if constexpr (kRotary) {
      angle = move.AngleOver<kGradient>(at, segments.tokens);
    }
    state = State::Load(in + offset, move.half_size).Move(angle, factor, state);
  }
  state.Store(out + offset, move.half_size);
}

MoveParameters MoveOf(const LinearAttentionShape& shape, const Segments& segments) {
  return {segments, shape.theta, shape.key_size * shape.value_size,
          static_cast<int>(shape.key_size), static_cast<int>(shape.value_size)};
}

dim3 ElementGrid(const MoveParameters& move) {
  const int64_t per_block = 4 * kScanThreads;
  return {static_cast<unsigned>((move.half_size + per_block - 1) / per_block),
          static_cast<unsigned>(move.segments.batch * move.segments.heads)};
}

// ---- launchers ----------------------------------------------------------------------------------

template <bool kGradient>
cudaError_t LaunchSegmentStates(const SegmentStateArgs& args, cudaStream_t stream) {
  const LinearAttentionShape& shape = args.problem.shape;
  SegmentStateParameters parameters{};
  parameters.segments = args.segments;
  parameters.first_segment = args.first_segment;
  parameters.key_size = static_cast<int>(shape.key_size);
  parameters.value_size = static_cast<int>(shape.value_size);
  parameters.states = args.states;
  cudaError_t error = MakeHeadsMap(args.keys, shape.batch, shape.tokens, shape.heads,
                                   shape.key_size, kChunk, &parameters.keys);
  if (error == cudaSuccess) {
    error = MakeHeadsMap(args.values, shape.batch, shape.tokens, shape.heads, shape.value_size,
                         kChunk, &parameters.values);
  }
  if (error == cudaSuccess) {
    error = cudaFuncSetAttribute(SegmentStateKernel<kGradient>,
                                 cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 sizeof(SegmentStateMemory));
  }
  if (error != cudaSuccess) {
    return error;
  }
  const dim3 grid(static_cast<unsigned>(args.count), static_cast<unsigned>(shape.heads),
                  static_cast<unsigned>(shape.batch));
  SegmentStateKernel<kGradient>
      <<<grid, kBlockThreads, sizeof(SegmentStateMemory), stream>>>(parameters);
  return cudaGetLastError();
}

template <bool kGradient>
cudaError_t LaunchStates(const LinearAttentionProblem& problem, const HeadsView<const Bf16>& keys,
                         const HeadsView<const Bf16>& values, float* states, float* total,
                         cudaStream_t stream) {
  SegmentStateArgs args;
  args.problem = problem;
  args.keys = keys;
  args.values = values;
  if (const cudaError_t error = PlanSegments(problem, &args.segments); error != cudaSuccess) {
    return error;
  }
  const int segments = args.segments.count;
  // The slice's own state needs every segment's; those before (after) the segments need all but the
  // last (first).
  args.count = total == nullptr ? segments - 1 : segments;
  args.first_segment = kGradient ? segments - args.count : 0;
  args.states = segments == 1 ? total : states;
  if (segments > 1 && states == nullptr) {
    return cudaErrorInvalidValue;
  }
  if (args.count == 0) {
    return cudaSuccess;
  }
  const bool rotary = problem.shape.theta != nullptr;
  const cudaError_t error = rotary ? RotarySegmentStates<kGradient>(args, stream)
                                   : LaunchSegmentStates<kGradient>(args, stream);
  if (error != cudaSuccess || segments == 1) {
    return error;
  }
  const MoveParameters move = MoveOf(problem.shape, args.segments);
  if (rotary) {
    ScanKernel<kGradient, true>
        <<<ElementGrid(move), kScanThreads, 0, stream>>>(move, states, total);
  } else {
    ScanKernel<kGradient, false>
        <<<ElementGrid(move), kScanThreads, 0, stream>>>(move, states, total);
  }
  return cudaGetLastError();
}

template <bool kGradient>
cudaError_t LaunchHop(const StateHopArgs& args, cudaStream_t stream) {
  Segments segments;
  if (const cudaError_t error = PlanSegments(args.problem, &segments); error != cudaSuccess) {
    return error;
  }
  const MoveParameters move = MoveOf(args.problem.shape, segments);
  if (args.problem.shape.theta != nullptr) {
    HopKernel<kGradient, true><<<ElementGrid(move), kScanThreads, 0, stream>>>(
        move, args.state_in, args.local, args.state_out);
  } else {
    HopKernel<kGradient, false><<<ElementGrid(move), kScanThreads, 0, stream>>>(
        move, args.state_in, args.local, args.state_out);
  }
  return cudaGetLastError();
}

}  // namespace

cudaError_t LocalState(const LocalStateArgs& args, cudaStream_t stream) {
  return LaunchStates<false>(args.problem, args.k, args.v, args.segment_states, args.state, stream);
}

cudaError_t LocalStateGradient(const LocalStateGradientArgs& args, cudaStream_t stream) {
  return LaunchStates<true>(args.problem, args.q, args.output_gradient,
                            args.segment_state_gradients, args.state_gradient, stream);
}

cudaError_t StateHop(const StateHopArgs& args, cudaStream_t stream) {
  return LaunchHop<false>(args, stream);
}

cudaError_t StateGradientHop(const StateHopArgs& args, cudaStream_t stream) {
  return LaunchHop<true>(args, stream);
}

}  // namespace lasp::kernels::cuda
