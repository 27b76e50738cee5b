// Linear attention with LRPE where what is rotated is contracted with the state: o = LA(q~, k~, v)
// and dv = LAr(k~, q~, do).
//
// Rotated tiles are operands in shared memory, which all math threads write for the next chunk
// while the products into the state run.
#include "kernels/cuda/linear_attention_rotary_sweep.cuh"

namespace lasp::kernels::cuda {
namespace {

struct KeysMemory {
  alignas(1024) uint8_t loaded[2][2][kTileBytes];  // x and y of two chunks
  uint8_t z[2][kTileBytes];                        // then the chunk's output
  uint8_t x[2 * kTileBytes];                       // the cosine half, the sine half
  uint8_t y[2][2 * kTileBytes];                    // of two chunks
  uint8_t scores[kPanelBytes];
  alignas(16) RowAngles angles;
  alignas(16) Angle chunk[2][kRotaryColumns];
  alignas(16) TokenWeights weights[2];  // with z
  float decay[DecayTable::kElements];
  uint64_t loaded_full[2];
  uint64_t loaded_empty[2];
  uint64_t z_full[2];
  uint64_t z_empty[2];
};

enum KeysBarriers : uint32_t { kRotatedBarrier = 1, kScoresBarrier = 2 };

// The loading warpgroup: tiles by its first thread, the angles of the chunk's first token by all.
template <bool kReverse>
__device__ void LoadChunks(const RotaryParameters& p, KeysMemory& memory, const Place& place) {
  const int thread = static_cast<int>(threadIdx.x) - kMathThreads;
  const Order<kReverse> order = {place.first, place.end};
  const auto load = [&](int i, int stage) {
    uint64_t* const full = &memory.loaded_full[stage];
    hopper::BarrierExpect(full, 2 * kTileBytes);
    LoadTile(p.x, place, order.At(i), full, memory.loaded[stage][0]);
    LoadTile(p.y, place, order.At(i), full, memory.loaded[stage][1]);
  };
  // The first tiles come while the angles are found.
  if (thread == 0) {
    load(0, 0);
  }
  ChunkAngle angle = FirstAngle<kReverse>(p, place, thread);
  hopper::LowerRegisters<kRotaryLoadRegisters>();
  Ring<2> ring;
  for (int i = 0; i < place.end - place.first; ++i) {
    const int stage = ring.stage;
    const int chunk = order.At(i);
    const uint64_t marks = MarksOf(p.segments, place.batch, chunk);
    uint64_t* const z_full = &memory.z_full[stage];
    hopper::BarrierWait(&memory.loaded_empty[stage], ring.phase ^ 1);
    if (thread == 0 && i > 0) {
      load(i, stage);
    }
    memory.chunk[stage][thread] = angle.Get();
    angle.Advance();
    hopper::BarrierArrive(&memory.loaded_full[stage]);
    hopper::BarrierWait(&memory.z_empty[stage], ring.phase ^ 1);
    if (thread == 0) {
      hopper::BarrierExpect(z_full, kTileBytes);
      LoadTile(p.z, place, chunk, z_full, memory.z[stage]);
    }
    FillWeight<kReverse>(DecayTable(memory.decay), p.segments.Length(chunk), marks, thread,
                         memory.weights[stage]);
    hopper::BarrierArrive(z_full);
    ring.Advance();
  }
}

template <bool kReverse>
__global__ void __launch_bounds__(kBlockThreads, 1)
    RotaryKeysKernel(const __grid_constant__ RotaryParameters p) {
  extern __shared__ __align__(1024) uint8_t shared[];
  auto& memory = *reinterpret_cast<KeysMemory*>(shared);
  const Segments& segments = p.segments;
  const int thread = static_cast<int>(threadIdx.x);
  memory.angles.Fill(p.theta + static_cast<int64_t>(blockIdx.y) * p.key_size, p.key_size, thread,
                     kBlockThreads);
  if (thread == 0) {
    for (int i = 0; i < 2; ++i) {
      hopper::BarrierInit(&memory.loaded_full[i], kWarpgroup);
      hopper::BarrierInit(&memory.loaded_empty[i], kMathThreads / 32);
      hopper::BarrierInit(&memory.z_full[i], kWarpgroup);
      hopper::BarrierInit(&memory.z_empty[i], 2);  // a thread of each math warpgroup
    }
    hopper::FenceBarrierInit();
  }
  auto* const turn = reinterpret_cast<Angle*>(memory.scores);
  const Place place = Begin<kReverse>(p, memory.decay, turn);
  if (thread >= kMathThreads) {
    LoadChunks<kReverse>(p, memory, place);
    return;
  }
  hopper::RaiseRegisters<kRotaryMathRegisters>();
  const int group = UniformWarpgroup();
  const bool elected = thread % kWarpgroup == 0;
  const Order<kReverse> order = {place.first, place.end};
  const int count = place.end - place.first;
  const DecayTable decay(memory.decay);

  const auto rotate = [&](const Ring<2>& at) {
    const int stage = at.stage;
    hopper::BarrierWait(&memory.loaded_full[stage], at.phase);
    const uint8_t* const tiles[] = {memory.loaded[stage][0], memory.loaded[stage][1]};
    uint8_t* const rotated[] = {memory.x, memory.y[stage]};
    RotateTiles(memory.angles, memory.chunk[stage], tiles, rotated, Opaque(thread));
    __syncwarp();
    if (thread % 32 == 0) {
      hopper::BarrierArrive(&memory.loaded_empty[stage]);
    }
  };
  HalfStates state;
  {
    const FragmentLane at(thread);
    LoadHalves<false>(
        p, at, group,
        p.segment_states == nullptr ? nullptr : p.segment_states + place.StateOffset(p),
        p.state_in == nullptr ? nullptr : p.state_in + place.pair * 2 * p.half_elements, place.far,
        turn, state);
    if (p.segment_starts != nullptr) {
      float* const starts = p.segment_starts + place.StateOffset(p);
      StoreState(p.layout, at, group * 64, state.cosine, starts);
      StoreState(p.layout, at, group * 64, state.sine, starts + p.half_elements);
    }
  }
  Ring<2> ring;
  rotate(ring);
  hopper::FenceAsyncShared();
  hopper::NamedBarrier(kRotatedBarrier, kMathThreads);

  for (int i = 0; i < count; ++i) {
    const int chunk = order.At(i);
    const FragmentLane here(Opaque(thread));
    const uint64_t marks = MarksOf(segments, place.batch, chunk);
    const TokenWeights& weights = memory.weights[ring.stage];
    const int base = Opaque(static_cast<int>(hopper::SharedAddress(shared)));
    const uint32_t x = static_cast<uint32_t>(base) + offsetof(KeysMemory, x);
    const uint32_t scores_panel = static_cast<uint32_t>(base) + offsetof(KeysMemory, scores);
    const uint32_t y = hopper::SharedAddress(memory.y[ring.stage]);
    const uint32_t y_half = y + static_cast<uint32_t>(group * 32 * 128);

    float scores[16];
    hopper::HoldRegisters(scores);
    hopper::ProductsBegin();
    IssueAlong<32>(x, y_half, false, scores);
    IssueAlong<32>(x + kTileBytes, y_half + kTileBytes, true, scores);
    hopper::ProductsCommit();
    hopper::ProductsWait<0>();
    hopper::HoldRegisters(scores);
    float output[32];
    hopper::HoldRegisters(output);
    const uint32_t z = hopper::SharedAddress(memory.z[ring.stage] + group * kPanelBytes);
    TokenFragments values;
    TokenFragments weighted;
    const auto between = [&](int step) {
      if (step == 3) {
        StoreScores<kReverse>(decay, here, group, marks, scores, scores_panel);
      } else if (step == 7) {
        hopper::BarrierWait(&memory.z_full[ring.stage], ring.phase);
        LoadTransposed(z, here, values);
      } else if (step == 11) {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
#pragma unroll
          for (int r = 0; r < 4; ++r) {
            weighted[k][r] = values[k][r];
          }
        }
        ScaleTokens(here, [&](int token) { return weights.into_state[token]; }, weighted);
      }
    };
    const float state_decay = marks == 0 ? decay[segments.Length(chunk)] : 0.0F;
    IssueFromState<4>(state, state_decay, x, x + kTileBytes, between, output, output);
    hopper::FenceAsyncShared();
    hopper::ProductsWait<0>();
    hopper::HoldRegisters(output);
    ScaleColumns(here, [&](int token) { return weights.of_state[token]; }, output);
    if (elected && i > 0) {
      hopper::StoreWaitRead<0>();  // the output of the chunk before
      hopper::BarrierArrive(&memory.z_empty[ring.stage ^ 1]);
    }
    // Past this barrier the scores are there, and nobody reads x any more.
    hopper::NamedBarrier(kScoresBarrier, kMathThreads);

    hopper::HoldRegisters(output);
    hopper::HoldRegisters(state.cosine);
    hopper::HoldRegisters(state.sine);
    hopper::ProductsBegin();
    IssueScored(values, scores_panel, output);
    hopper::ProductsCommit();
    IssueIntoState(weighted, y, state.cosine);
    IssueIntoState(weighted, y + kTileBytes, state.sine);
    hopper::ProductsCommit();
    hopper::ProductsWait<1>();
    hopper::HoldRegisters(output);
    // Each warp writes what it alone has read.
    StoreTransposed(output, here, z);
    Ring<2> next = ring;
    next.Advance();
    if (i + 1 < count) {
      rotate(next);
    }
    hopper::ProductsWait<0>();
    hopper::HoldRegisters(state.cosine);
    hopper::HoldRegisters(state.sine);
    hopper::FenceAsyncShared();
    hopper::NamedBarrier(kRotatedBarrier, kMathThreads);
    if (elected) {
      hopper::StoreBox(&p.output, memory.z[ring.stage] + group * kPanelBytes, group * kPanelColumns,
                       place.head, chunk * kChunk, place.batch);
      hopper::StoreCommit();
    }
    ring = next;
  }
  if (elected) {
    hopper::StoreWaitRead<0>();
  }
}

}  // namespace

cudaError_t RotaryOutput(const OutputArgs& args, cudaStream_t stream) {
  const LinearAttentionShape& shape = args.problem.shape;
  RotaryParameters parameters{};
  if (const cudaError_t error = PlanSweep(args.problem, args.segment_states, &parameters.segments,
                                          &parameters.segment_states);
      error != cudaSuccess) {
    return error;
  }
  if (args.state_out != nullptr) {
    return cudaErrorInvalidValue;
  }
  parameters.layout = StateLayout::ValuesByKeys(static_cast<int>(shape.key_size),
                                                static_cast<int>(shape.value_size));
  parameters.state_in = args.state_in;
  parameters.segment_starts = args.segment_starts;
  return LaunchRotary(RotaryKeysKernel<false>, sizeof(KeysMemory), shape,
                      {args.q, args.k, args.v, args.output, shape.key_size, shape.value_size},
                      parameters, stream);
}

cudaError_t RotaryValueGradient(const KeyValueGradientArgs& args, cudaStream_t stream) {
  const LinearAttentionShape& shape = args.problem.shape;
  RotaryParameters parameters{};
  if (const cudaError_t error = PlanSweep(args.problem, args.segment_state_gradients,
                                          &parameters.segments, &parameters.segment_states);
      error != cudaSuccess) {
    return error;
  }
  parameters.layout = StateLayout::ValuesByKeys(static_cast<int>(shape.key_size),
                                                static_cast<int>(shape.value_size));
  parameters.state_in = args.state_gradient_in;
  return LaunchRotary(
      RotaryKeysKernel<true>, sizeof(KeysMemory), shape,
      {args.k, args.q, args.output_gradient, args.v_gradient, shape.key_size, shape.value_size},
      parameters, stream);
}

}  // namespace lasp::kernels::cuda
