// The states of linear attention: what each segment adds, and from that the states at the segments'
// borders.
#include <algorithm>

#include "kernels/cuda/linear_attention.h"
#include "kernels/cuda/linear_attention_launch.cuh"
#include "kernels/cuda/linear_attention_moves.h"
#include "kernels/cuda/linear_attention_rotary.h"
#include "kernels/cuda/linear_attention_segment_reach.cuh"
#include "kernels/cuda/linear_attention_segments.h"
#include "kernels/cuda/linear_attention_tiles.cuh"

namespace lasp::kernels::cuda {
namespace {

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
  return LaunchSegments(SegmentStateKernel<kGradient>, sizeof(SegmentStateMemory), args.count,
                        shape,
                        {{args.keys, shape.key_size, &parameters.keys},
                         {args.values, shape.value_size, &parameters.values}},
                        parameters, stream);
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
  return ScanSegmentStates<kGradient>(problem.shape, args.segments, states, total, stream);
}

}  // namespace

cudaError_t LocalState(const LocalStateArgs& args, cudaStream_t stream) {
  return LaunchStates<false>(args.problem, args.k, args.v, args.segment_states, args.state, stream);
}

cudaError_t LocalStateGradient(const LocalStateGradientArgs& args, cudaStream_t stream) {
  return LaunchStates<true>(args.problem, args.q, args.output_gradient,
                            args.segment_state_gradients, args.state_gradient, stream);
}

}  // namespace lasp::kernels::cuda
