// The states of linear attention: what each segment adds, the states at the segments' borders, and
// the hops between ranks.
#include <algorithm>

#include "kernels/cuda/linear_attention.h"
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

// How many chunks of a segment, counted from the border that the state is for, may count: all, up
// to the first with a document's start, as far as anything is seen. By all threads.
template <bool kGradient>
__device__ int ChunksThatCount(const Segments& segments, int segment, int batch, double slope,
                               int* shared) {
  const int first = segments.FirstChunk(segment);
  const int end = segments.EndChunk(segment);
  if (threadIdx.x == 0) {
    int count = end - first;
    if (slope > 0) {
      const double farthest = kFarthestExponent / slope / kChunk + 2;
      count = farthest < count ? static_cast<int>(farthest) : count;
    }
    *shared = count;
  }
  __syncthreads();
  if (segments.marks != nullptr) {
    for (int i = static_cast<int>(threadIdx.x); i < end - first; i += kBlockThreads) {
      if (MarksOf(segments, batch, kGradient ? first + i : end - 1 - i) != 0) {
        atomicMin(shared, i + 1);
        break;
      }
    }
    __syncthreads();
  }
  return *shared;
}

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
  const int group = thread / kWarpgroup;
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
    TokenWeights weights;
    FillWeights(at, weights, [&](int token) {
      const bool seen = kGradient ? token < bound : token >= bound;
      const float weight = decay[kGradient ? token + 1 : length - 1 - token];
      return seen ? weight * far : 0.0F;
    });
    if (exists) {
      hopper::BarrierWait(&memory.full[ring.stage], ring.phase);
    }
    LoadTransposed(hopper::SharedAddress(memory.values[ring.stage] + group * kPanelBytes), at,
                   values);
    ScaleTokens(weights, values);
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

struct ScanParameters {
  Segments segments;
  int64_t elements;  // of a state
  float* states;     // local ones become those before (after) each segment
  float* total;      // the local state of the slice, or null
};

constexpr int kScanThreads = 256;

__device__ float4 MultiplyAdd(float4 x, float factor, float4 addend) {
  return {fmaf(x.x, factor, addend.x), fmaf(x.y, factor, addend.y), fmaf(x.z, factor, addend.z),
          fmaf(x.w, factor, addend.w)};
}

// One thread for four elements of a state, over the segments in the order of the recurrence.
template <bool kGradient>
__global__ void ScanKernel(const ScanParameters parameters) {
  const Segments& segments = parameters.segments;
  const int64_t pair = blockIdx.y;
  const double slope = segments.slopes[pair % segments.heads];
  const auto batch = static_cast<int>(pair / segments.heads);
  const int64_t element = 4 * (static_cast<int64_t>(blockIdx.x) * kScanThreads + threadIdx.x);
  const bool active = element < parameters.elements;
  float4* const at = reinterpret_cast<float4*>(
      parameters.states + pair * segments.count * parameters.elements + element);
  const int64_t step = parameters.elements / 4;
  const int count = segments.count;
  const float whole_factor =
      FarDecay(slope, static_cast<int64_t>(segments.segment_chunks) * kChunk);
  const auto local_of = [&](int i) {
    // The last in order adds only to the slice's own state.
    const bool wanted = active && (i < count - 1 || (i < count && parameters.total != nullptr));
    return wanted ? at[(kGradient ? count - 1 - i : i) * step] : make_float4(0, 0, 0, 0);
  };
  // A few segments' loads are in flight, ahead of the stores.
  constexpr int kAhead = 4;
  float4 ahead[kAhead];
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    ahead[i] = local_of(i);
  }
  float4 running = make_float4(0, 0, 0, 0);
  for (int base = 0; base < count; base += kAhead) {
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const int i = base + j;
      if (i >= count) {
        break;
      }
      const int segment = kGradient ? count - 1 - i : i;
      bool starts = false;
      if (segments.marks != nullptr) {
        for (int chunk = segments.FirstChunk(segment) + static_cast<int>(threadIdx.x);
             chunk < segments.EndChunk(segment); chunk += kScanThreads) {
          starts = starts || MarksOf(segments, batch, chunk) != 0;
        }
        starts = __syncthreads_or(static_cast<int>(starts)) != 0;
      }
      float factor = whole_factor;
      if (segment == count - 1) {
        factor = FarDecay(
            slope, segments.tokens - static_cast<int64_t>(segments.FirstChunk(segment)) * kChunk);
      }
      const float4 local = ahead[j];
      ahead[j] = local_of(i + kAhead);
      if (active) {
        at[segment * step] = running;
      }
      running = MultiplyAdd(running, starts ? 0.0F : factor, local);
    }
  }
  if (active && parameters.total != nullptr) {
    *reinterpret_cast<float4*>(parameters.total + pair * parameters.elements + element) = running;
  }
}

// ---- the hops between ranks ---------------------------------------------------------------------

struct HopParameters {
  Segments segments;
  int64_t elements;
  const float* in;
  const float* local;
  float* out;
};

__global__ void HopKernel(const HopParameters parameters) {
  const Segments& segments = parameters.segments;
  const int64_t pair = blockIdx.y;
  const auto batch = static_cast<int>(pair / segments.heads);
  bool starts = false;
  if (segments.marks != nullptr) {
    for (int chunk = static_cast<int>(threadIdx.x); chunk < segments.chunks;
         chunk += kScanThreads) {
      starts = starts || MarksOf(segments, batch, chunk) != 0;
    }
    starts = __syncthreads_or(static_cast<int>(starts)) != 0;
  }
  const int64_t element = 4 * (static_cast<int64_t>(blockIdx.x) * kScanThreads + threadIdx.x);
  if (element >= parameters.elements) {
    return;
  }
  const float factor =
      starts ? 0.0F : FarDecay(segments.slopes[pair % segments.heads], segments.tokens);
  const int64_t offset = pair * parameters.elements + element;
  float4 out = *reinterpret_cast<const float4*>(parameters.local + offset);
  if (parameters.in != nullptr && factor != 0) {
    const float4 in = *reinterpret_cast<const float4*>(parameters.in + offset);
    out = MultiplyAdd(in, factor, out);
  }
  *reinterpret_cast<float4*>(parameters.out + offset) = out;
}

dim3 ElementGrid(const Segments& segments, int64_t elements) {
  const int64_t per_block = 4 * kScanThreads;
  return {static_cast<unsigned>((elements + per_block - 1) / per_block),
          static_cast<unsigned>(segments.batch * segments.heads)};
}

// ---- launchers ----------------------------------------------------------------------------------

template <bool kGradient>
cudaError_t LaunchStates(const LinearAttentionProblem& problem, const HeadsView<const Bf16>& keys,
                         const HeadsView<const Bf16>& values, float* states, float* total,
                         cudaStream_t stream) {
  SegmentStateParameters parameters;
  const LinearAttentionShape& shape = problem.shape;
  if (const cudaError_t error = PlanSegments(problem, &parameters.segments); error != cudaSuccess) {
    return error;
  }
  const int count = parameters.segments.count;
  const int wanted = total == nullptr ? count - 1 : count;
  if (count > 1 && states == nullptr) {
    return cudaErrorInvalidValue;
  }
  if (wanted == 0) {
    return cudaSuccess;
  }
  cudaError_t error = MakeHeadsMap(keys, shape.batch, shape.tokens, shape.heads, shape.key_size,
                                   kChunk, &parameters.keys);
  if (error == cudaSuccess) {
    error = MakeHeadsMap(values, shape.batch, shape.tokens, shape.heads, shape.value_size, kChunk,
                         &parameters.values);
  }
  if (error == cudaSuccess) {
    error = cudaFuncSetAttribute(SegmentStateKernel<kGradient>,
                                 cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 sizeof(SegmentStateMemory));
  }
  if (error != cudaSuccess) {
    return error;
  }
  // The slice's own state needs every segment's; those before (after) the segments need all but the
  // last (first).
  parameters.first_segment = kGradient ? count - wanted : 0;
  parameters.key_size = static_cast<int>(shape.key_size);
  parameters.value_size = static_cast<int>(shape.value_size);
  parameters.states = count == 1 ? total : states;
  const dim3 grid(static_cast<unsigned>(wanted), static_cast<unsigned>(shape.heads),
                  static_cast<unsigned>(shape.batch));
  SegmentStateKernel<kGradient>
      <<<grid, kBlockThreads, sizeof(SegmentStateMemory), stream>>>(parameters);
  if (count > 1) {
    const int64_t elements = StateRows(shape) * shape.value_size;
    ScanKernel<kGradient><<<ElementGrid(parameters.segments, elements), kScanThreads, 0, stream>>>(
        {parameters.segments, elements, states, total});
  }
  return cudaGetLastError();
}

cudaError_t LaunchHop(const StateHopArgs& args, cudaStream_t stream) {
  HopParameters parameters;
  if (const cudaError_t error = PlanSegments(args.problem, &parameters.segments);
      error != cudaSuccess) {
    return error;
  }
  parameters.elements = StateRows(args.problem.shape) * args.problem.shape.value_size;
  parameters.in = args.state_in;
  parameters.local = args.local;
  parameters.out = args.state_out;
  HopKernel<<<ElementGrid(parameters.segments, parameters.elements), kScanThreads, 0, stream>>>(
      parameters);
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
  return LaunchHop(args, stream);
}

cudaError_t StateGradientHop(const StateHopArgs& args, cudaStream_t stream) {
  return LaunchHop(args, stream);
}

}  // namespace lasp::kernels::cuda
