// What each segment adds to the state of linear attention with LRPE: as in
// linear_attention_state.cu, with the keys (queries, for the gradient) rotated by their distance
// from the border that the state is for.
//
// Each math warpgroup owns 64 columns of keys, which it turns in registers as the left operand of
// the product with the values.
#include "kernels/cuda/linear_attention_launch.cuh"
#include "kernels/cuda/linear_attention_rotary.cuh"
#include "kernels/cuda/linear_attention_rotary.h"
#include "kernels/cuda/linear_attention_segment_reach.cuh"
#include "kernels/cuda/linear_attention_tiles.cuh"

namespace lasp::kernels::cuda {
namespace {

constexpr int kStages = 6;

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
  alignas(16) FragmentAngles angles;
  alignas(16) Angle chunk[kStages][kRotaryColumns];
  alignas(16) float weights[kStages][kChunk];  // of tokens
  float decay[DecayTable::kElements];
  uint64_t full[kStages];
  uint64_t empty[kStages];
  int chunks;
};

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
  memory.angles.Fill(theta, p.key_size, thread, kBlockThreads);
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
    const auto load = [&](int i, int stage) {
      uint64_t* const full = &memory.full[stage];
      hopper::BarrierExpect(full, 2 * kTileBytes);
      const int token = chunk_at(i) * kChunk;
      for (int panel = 0; panel < 2; ++panel) {
        hopper::LoadBox(&p.keys, full, memory.keys[stage] + panel * kPanelBytes,
                        panel * kPanelColumns, head, token, batch);
        hopper::LoadBox(&p.values, full, memory.values[stage] + panel * kPanelBytes,
                        panel * kPanelColumns, head, token, batch);
      }
    };
    // The first tiles come while the angles are found.
    if (column == 0) {
      load(0, 0);
    }
    const int64_t position = kGradient ? 0 : static_cast<int64_t>(end - 1) * kChunk - end_token;
    ChunkAngle angle(column < p.key_size ? theta[column] : 0.0, position,
                     kGradient ? kChunk : -kChunk);
    const auto slope_log2 = static_cast<float>(-slope * 1.4426950408889634);
    hopper::LowerRegisters<kRotaryLoadRegisters>();
    Ring<kStages> ring;
    for (int i = 0; i < count; ++i) {
      const int stage = ring.stage;
      const int chunk = chunk_at(i);
      hopper::BarrierWait(&memory.empty[stage], ring.phase ^ 1);
      if (column == 0 && i > 0) {
        load(i, stage);
      }
      memory.chunk[stage][column] = angle.Get();
      angle.Advance();
      if (column < kChunk) {
        const int length = segments.Length(chunk);
        const uint64_t marks = MarksOf(segments, batch, chunk);
        const int64_t distance = kGradient
                                     ? static_cast<int64_t>(chunk - first) * kChunk
                                     : end_token - static_cast<int64_t>(chunk) * kChunk - length;
        const bool seen = kGradient ? column < FirstMark(marks) : column >= LastMark(marks);
        const float weight = decay[kGradient ? column + 1 : length - 1 - column];
        memory.weights[stage][column] =
            seen ? weight * exp2f(slope_log2 * static_cast<float>(distance)) : 0.0F;
      }
      hopper::BarrierArrive(&memory.full[stage]);
      ring.Advance();
    }
    return;
  }

  hopper::RaiseRegisters<kRotaryMathRegisters>();
  const int group = UniformWarpgroup();
  const FragmentLane at(thread);
  float cosine[64];
  float sine[64];
#pragma unroll
  for (int i = 0; i < 64; ++i) {
    cosine[i] = 0;
    sine[i] = 0;
  }
  // A chunk's keys, turned and weighted.
  const auto prepare = [&](const Ring<kStages>& ring, TokenFragments& cosines,
                           TokenFragments& sines) {
    hopper::BarrierWait(&memory.full[ring.stage], ring.phase);
    const FragmentLane here(Opaque(thread));
    const float* const weights = memory.weights[ring.stage];
    const uint32_t keys = hopper::SharedAddress(memory.keys[ring.stage] + group * kPanelBytes);
    TokenAngles angles(memory.angles, memory.chunk[ring.stage], group * 64, here);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      uint32_t loaded[4];
      LoadTransposed(keys, here, k, loaded);
      RotateFragment(
          here, k, [&](int token) { return weights[token]; }, loaded, angles, cosines[k], sines[k]);
    }
  };
  const auto issue = [&](const Ring<kStages>& ring, const TokenFragments& cosines,
                         const TokenFragments& sines) {
    const uint64_t values =
        hopper::OperandDescriptor(hopper::SharedAddress(memory.values[ring.stage]), kPanelBytes);
    hopper::ProductsBegin();
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      hopper::Product<128, hopper::Major::kAcross>::FromRegisters(cosine, cosines[k],
                                                                  values + k * (2048 >> 4), true);
      hopper::Product<128, hopper::Major::kAcross>::FromRegisters(sine, sines[k],
                                                                  values + k * (2048 >> 4), true);
    }
    hopper::ProductsCommit();
  };
  // Each chunk is turned while the one before is multiplied.
  TokenFragments cosines[2];
  TokenFragments sines[2];
  Ring<kStages> ring;
  prepare(ring, cosines[0], sines[0]);
  for (int i = 0; i < count; i += 2) {
#pragma unroll
    for (int odd = 0; odd < 2; ++odd) {
      if (i + odd >= count) {
        break;
      }
      Ring<kStages> next = ring;
      next.Advance();
      hopper::HoldRegisters(cosine);
      hopper::HoldRegisters(sine);
      issue(ring, cosines[odd], sines[odd]);
      if (i + odd + 1 < count) {
        prepare(next, cosines[1 - odd], sines[1 - odd]);
      }
      hopper::ProductsWait<0>();
      hopper::HoldRegisters(cosine);
      hopper::HoldRegisters(sine);
      if (at.lane == 0) {
        hopper::BarrierArrive(&memory.empty[ring.stage]);
      }
      ring = next;
    }
  }
  const StateLayout layout = StateLayout::KeysByValues(p.key_size, p.value_size);
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
  return LaunchSegments(RotaryStateKernel<kGradient>, sizeof(RotaryStateMemory), args.count, shape,
                        {{args.keys, shape.key_size, &parameters.keys},
                         {args.values, shape.value_size, &parameters.values}},
                        parameters, stream);
}

template cudaError_t RotarySegmentStates<false>(const SegmentStateArgs&, cudaStream_t);
template cudaError_t RotarySegmentStates<true>(const SegmentStateArgs&, cudaStream_t);

}  // namespace lasp::kernels::cuda
