// What each segment adds to the state of linear attention with LRPE: as in
// linear_attention_state.cu, with the keys (queries, for the gradient) rotated by their distance
// from the border that the state is for.
#include "kernels/cuda/linear_attention_rotary.cuh"
#include "kernels/cuda/linear_attention_rotary.h"
#include "kernels/cuda/linear_attention_segment_reach.cuh"
#include "kernels/cuda/linear_attention_tiles.cuh"
#include "kernels/cuda/tensor_map.h"

namespace lasp::kernels::cuda {
namespace {

constexpr int kStages = 4;

struct RotaryStateParameters {
  CUtensorMap keys;
  CUtensorMap values;
  Segments segments;
  const double* theta;
  int first_segment;
  int key_size;
  int value_size;
  float* states;  // [batch, heads, segments, 2 key_size, value_size]
};

struct RotaryStateMemory {
  alignas(1024) uint8_t keys[kStages][kTileBytes];
  uint8_t values[kStages][kTileBytes];
  uint8_t sines[2][kTileBytes];  // two, so that one barrier a chunk is enough
  RotaryTable table;
  alignas(16) Angle chunk[kStages][kRotaryColumns];
  float decay[DecayTable::kElements];
  uint64_t full[kStages];
  uint64_t empty[kStages];
  int chunks;
};

enum NamedBarriers : uint32_t { kRotatedBarrier = 1 };

template <bool kGradient>
__global__ void __launch_bounds__(kBlockThreads, 1)
    RotaryStateKernel(const __grid_constant__ RotaryStateParameters p) {
  extern __shared__ __align__(1024) uint8_t shared[];
  auto& memory = *reinterpret_cast<RotaryStateMemory*>(shared);
  const Segments& segments = p.segments;
  const int segment = static_cast<int>(blockIdx.x) + p.first_segment;
  const int head = static_cast<int>(blockIdx.y);
  const int batch = static_cast<int>(blockIdx.z);
  const int thread = static_cast<int>(threadIdx.x);
  const double slope = segments.slopes[head];
  const double* const theta = p.theta + static_cast<int64_t>(head) * p.key_size;
  DecayTable decay(memory.decay);
  decay.Fill(slope, thread, kBlockThreads);
  memory.table.Fill(theta, p.key_size, thread, kBlockThreads);
  if (thread == 0) {
    for (int i = 0; i < kStages; ++i) {
      hopper::BarrierInit(&memory.full[i], kWarpgroup);
      hopper::BarrierInit(&memory.empty[i], kMathThreads / 32);
    }
    hopper::FenceBarrierInit();
  }
  const int count = ChunksThatCount<kGradient>(segments, segment, batch, slope, &memory.chunks);
  __syncthreads();
  const int first = segments.FirstChunk(segment);
  const int end = segments.EndChunk(segment);
  const int64_t end_token = segments.EndToken(segment);
  const auto chunk_at = [&](int i) { return kGradient ? first + i : end - 1 - i; };

  if (thread >= kMathThreads) {
    const int column = thread - kMathThreads;
    const int64_t position = kGradient ? 0 : static_cast<int64_t>(end - 1) * kChunk - end_token;
    ChunkAngle angle(column < p.key_size ? theta[column] : 0.0, position,
                     kGradient ? kChunk : -kChunk);
    hopper::LowerRegisters<kLoadRegisters>();
    Ring<kStages> ring;
    for (int i = 0; i < count; ++i) {
      hopper::BarrierWait(&memory.empty[ring.stage], ring.phase ^ 1);
      uint64_t* const full = &memory.full[ring.stage];
      memory.chunk[ring.stage][column] = angle.Get();
      angle.Advance();
      if (column > 0) {
        hopper::BarrierArrive(full);
      } else {
        hopper::BarrierArriveExpect(full, 2 * kTileBytes);
        const int token = chunk_at(i) * kChunk;
        for (int panel = 0; panel < 2; ++panel) {
          hopper::LoadBox(&p.keys, full, memory.keys[ring.stage] + panel * kPanelBytes,
                          panel * kPanelColumns, head, token, batch);
          hopper::LoadBox(&p.values, full, memory.values[ring.stage] + panel * kPanelBytes,
                          panel * kPanelColumns, head, token, batch);
        }
      }
      ring.Advance();
    }
    return;
  }

  hopper::RaiseRegisters<kMathRegisters>();
  const int group = UniformWarpgroup();
  const FragmentLane at(thread);
  const auto slope_log2 = static_cast<float>(-slope * 1.4426950408889634);
  float cosine[64];
  float sine[64];
#pragma unroll
  for (int i = 0; i < 64; ++i) {
    cosine[i] = 0;
    sine[i] = 0;
  }
  const auto rotate = [&](int i, const Ring<kStages>& at_stage) {
    hopper::BarrierWait(&memory.full[at_stage.stage], at_stage.phase);
    uint8_t* const tiles[] = {memory.keys[at_stage.stage]};
    uint8_t* const sine_tiles[] = {memory.sines[i & 1]};
    RotateTiles(memory.table, memory.chunk[at_stage.stage], tiles, sine_tiles, Opaque(thread));
  };
  Ring<kStages> ring;
  rotate(0, ring);
  for (int i = 0; i < count; ++i) {
    const int chunk = chunk_at(i);
    const int length = segments.Length(chunk);
    const uint64_t marks = MarksOf(segments, batch, chunk);
    const int64_t distance = kGradient ? static_cast<int64_t>(chunk - first) * kChunk
                                       : end_token - static_cast<int64_t>(chunk) * kChunk - length;
    const float far = exp2f(slope_log2 * static_cast<float>(distance));
    const int bound = kGradient ? FirstMark(marks) : LastMark(marks);
    hopper::FenceAsyncShared();
    TokenFragments values;
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
    hopper::NamedBarrier(kRotatedBarrier, kMathThreads);
    const uint64_t cosines =
        hopper::OperandDescriptor(hopper::SharedAddress(memory.keys[ring.stage]), kPanelBytes);
    const uint64_t sines =
        hopper::OperandDescriptor(hopper::SharedAddress(memory.sines[i & 1]), kPanelBytes);
    hopper::HoldRegisters(cosine);
    hopper::HoldRegisters(sine);
    hopper::ProductsBegin();
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      hopper::Product<128, hopper::Major::kAcross>::FromRegisters(cosine, values[k],
                                                                  cosines + k * (2048 >> 4), true);
      hopper::Product<128, hopper::Major::kAcross>::FromRegisters(sine, values[k],
                                                                  sines + k * (2048 >> 4), true);
    }
    hopper::ProductsCommit();
    // The next chunk is rotated under the product.
    Ring<kStages> next = ring;
    next.Advance();
    if (i + 1 < count) {
      rotate(i + 1, next);
    }
    hopper::ProductsWait<0>();
    hopper::HoldRegisters(cosine);
    hopper::HoldRegisters(sine);
    if (at.lane == 0) {
      hopper::BarrierArrive(&memory.empty[ring.stage]);
    }
    ring = next;
  }
  const StateLayout layout = StateLayout::ValuesByKeys(p.key_size, p.value_size);
  const int64_t pair = static_cast<int64_t>(batch) * segments.heads + head;
  const int64_t half_size = static_cast<int64_t>(p.key_size) * p.value_size;
  float* const state = p.states + (pair * segments.count + segment) * 2 * half_size;
  StoreState(layout, at, group * 64, cosine, state);
  StoreState(layout, at, group * 64, sine, state + half_size);
}

}  // namespace

template <bool kGradient>
cudaError_t RotarySegmentStates(const SegmentStateArgs& args, cudaStream_t stream) {
  const LinearAttentionShape& shape = args.problem.shape;
  RotaryStateParameters parameters{};
  parameters.segments = args.segments;
  parameters.theta = shape.theta;
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
    error = cudaFuncSetAttribute(RotaryStateKernel<kGradient>,
                                 cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 sizeof(RotaryStateMemory));
  }
  if (error != cudaSuccess) {
    return error;
  }
  const dim3 grid(static_cast<unsigned>(args.count), static_cast<unsigned>(shape.heads),
                  static_cast<unsigned>(shape.batch));
  RotaryStateKernel<kGradient>
      <<<grid, kBlockThreads, sizeof(RotaryStateMemory), stream>>>(parameters);
  return cudaGetLastError();
}

template cudaError_t RotarySegmentStates<false>(const SegmentStateArgs&, cudaStream_t);
template cudaError_t RotarySegmentStates<true>(const SegmentStateArgs&, cudaStream_t);

}  // namespace lasp::kernels::cuda
