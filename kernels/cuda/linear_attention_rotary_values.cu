// Linear attention with LRPE where what the state gives is rotated, and turned back: dq~ =
// LA(do, v, k~) and dk~ = LAr(v, do, q~).
//
// What is rotated is a left operand only, so a thread turns its fragments of z in registers, and
// keeps them in shared memory of its own until they are needed. The next chunk's scores and
// rotation run under the products into the state.
#include "kernels/cuda/linear_attention_rotary_sweep.cuh"

namespace lasp::kernels::cuda {
namespace {

constexpr int kStages = 3;

// Threads' fragments.
using Kept = uint4[4][kMathThreads];

struct ValuesMemory {
  struct Stage {
    uint8_t x[kTileBytes];
    uint8_t y[kTileBytes];
    uint8_t z[kTileBytes];  // then the chunk's output
  };

  alignas(1024) Stage stages[kStages];
  uint8_t scores[2][kPanelBytes];
  Kept rotated[2];  // z: the cosine half, the sine half
  alignas(16) FragmentAngles angles;
  alignas(16) Angle chunk[kStages][kRotaryColumns];
  alignas(16) TokenWeights weights[kStages];
  float decay[DecayTable::kElements];
  uint64_t full[kStages];
  uint64_t empty[kStages];
  uint64_t scored[2];
};

enum ValuesBarriers : uint32_t { kOutputBarrier = 1 };  // and one more

// The loading warpgroup: tiles by its first thread, the angles of the chunk's first token by all.
template <bool kReverse>
__device__ void LoadChunks(const RotaryParameters& p, ValuesMemory& memory, const Place& place) {
  const int thread = static_cast<int>(threadIdx.x) - kMathThreads;
  const Order<kReverse> order = {place.first, place.end};
  const auto load = [&](int i, int index) {
    uint64_t* const full = &memory.full[index];
    ValuesMemory::Stage& stage = memory.stages[index];
    hopper::BarrierExpect(full, sizeof(stage));
    LoadTile(p.x, place, order.At(i), full, stage.x);
    LoadTile(p.y, place, order.At(i), full, stage.y);
    LoadTile(p.z, place, order.At(i), full, stage.z);
  };
  // The first tiles come while the angles are found.
  if (thread == 0) {
    load(0, 0);
  }
  ChunkAngle angle = FirstAngle<kReverse>(p, place, thread);
  hopper::LowerRegisters<kRotaryLoadRegisters>();
  Ring<kStages> ring;
  for (int i = 0; i < place.end - place.first; ++i) {
    const int stage = ring.stage;
    const int chunk = order.At(i);
    const uint64_t marks = MarksOf(p.segments, place.batch, chunk);
    hopper::BarrierWait(&memory.empty[stage], ring.phase ^ 1);
    if (thread == 0 && i > 0) {
      load(i, stage);
    }
    memory.chunk[stage][thread] = angle.Get();
    angle.Advance();
    FillWeight<kReverse>(DecayTable(memory.decay), p.segments.Length(chunk), marks, thread,
                         memory.weights[stage]);
    hopper::BarrierArrive(&memory.full[stage]);
    ring.Advance();
  }
}

__device__ void Keep(const uint32_t (&fragment)[4], uint4& to) {
  to = {fragment[0], fragment[1], fragment[2], fragment[3]};
}

__device__ void Fetch(const uint4& from, uint32_t (&fragment)[4]) {
  const uint4 kept = from;
  fragment[0] = kept.x;
  fragment[1] = kept.y;
  fragment[2] = kept.z;
  fragment[3] = kept.w;
}

// output^T += z^T scores^T for both halves of z, which are fetched on the way. Returns with at most
// two groups of products in flight.
__device__ void IssueScored(const Kept (&rotated)[2], int thread, uint32_t scores,
                            float (&output)[32], float (&sine_output)[32]) {
  const uint64_t right = hopper::OperandDescriptor(scores, 0);
  uint32_t cosine[2][4];
  uint32_t sine[2][4];
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    if (k >= 2) {
      hopper::ProductsWait<1>();  // the group that had these registers
    }
    Fetch(rotated[0][k][thread], cosine[k % 2]);
    Fetch(rotated[1][k][thread], sine[k % 2]);
    hopper::ProductsBegin();
    hopper::Product<64, hopper::Major::kAlong>::FromRegisters(output, cosine[k % 2], right + 2 * k,
                                                              true);
    hopper::Product<64, hopper::Major::kAlong>::FromRegisters(sine_output, sine[k % 2],
                                                              right + 2 * k, true);
    hopper::ProductsCommit();
  }
}

template <bool kReverse>
__global__ void __launch_bounds__(kBlockThreads, 1)
    RotaryValuesKernel(const __grid_constant__ RotaryParameters p) {
  extern __shared__ __align__(1024) uint8_t shared[];
  auto& memory = *reinterpret_cast<ValuesMemory*>(shared);
  const Segments& segments = p.segments;
  const int thread = static_cast<int>(threadIdx.x);
  memory.angles.Fill(p.theta + static_cast<int64_t>(blockIdx.y) * p.key_size, p.key_size, thread,
                     kBlockThreads);
  if (thread == 0) {
    for (int i = 0; i < kStages; ++i) {
      hopper::BarrierInit(&memory.full[i], kWarpgroup);
      hopper::BarrierInit(&memory.empty[i], kMathThreads / 32);
    }
    for (uint64_t& scored : memory.scored) {
      hopper::BarrierInit(&scored, kMathThreads / 32);
    }
    hopper::FenceBarrierInit();
  }
  auto* const turn = reinterpret_cast<Angle*>(memory.scores[1]);
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

  const auto issue_scores = [&](const ValuesMemory::Stage& stage, float(&scores)[16]) {
    hopper::ProductsBegin();
    IssueAlong<32>(hopper::SharedAddress(stage.x),
                   hopper::SharedAddress(stage.y) + static_cast<uint32_t>(group * 32 * 128), false,
                   scores);
    hopper::ProductsCommit();
  };
  const auto rotate = [&](int stage) {
    const int opaque = Opaque(thread);
    const FragmentLane at(opaque);
    const uint32_t z = hopper::SharedAddress(memory.stages[stage].z + group * kPanelBytes);
    TokenAngles angles(memory.angles, memory.chunk[stage], group * 64, at);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      uint32_t keys[4];
      uint32_t cosine[4];
      uint32_t sine[4];
      LoadTransposed(z, at, k, keys);
      RotateFragment(at, k, [](int) { return 1.0F; }, keys, angles, cosine, sine);
      Keep(cosine, memory.rotated[0][k][opaque]);
      Keep(sine, memory.rotated[1][k][opaque]);
    }
  };
  // Each warpgroup gives the other its half of the scores, and waits for the other's when it needs
  // them.
  const auto give_scores = [&](uint64_t marks, int buffer, float(&scores)[16]) {
    StoreScores<kReverse>(decay, FragmentLane(Opaque(thread)), group, marks, scores,
                          hopper::SharedAddress(memory.scores[buffer]));
    hopper::FenceAsyncShared();
    __syncwarp();
    if (thread % 32 == 0) {
      hopper::BarrierArrive(&memory.scored[buffer]);
    }
  };
  HalfStates state;
  LoadHalves<true>(p, FragmentLane(thread), group,
                   p.segment_states == nullptr ? nullptr : p.segment_states + place.StateOffset(p),
                   p.state_in == nullptr ? nullptr : p.state_in + place.pair * 2 * p.half_elements,
                   place.far, turn, state);

  Ring<kStages> ring;
  uint64_t marks = MarksOf(segments, place.batch, order.At(0));
  {
    float scores[16];
    hopper::BarrierWait(&memory.full[0], 0);
    hopper::HoldRegisters(scores);
    issue_scores(memory.stages[0], scores);
    rotate(0);
    hopper::ProductsWait<0>();
    hopper::HoldRegisters(scores);
    give_scores(marks, 0, scores);
  }
  for (int i = 0; i < count; ++i) {
    const int chunk = order.At(i);
    const int opaque = Opaque(thread);
    const FragmentLane here(opaque);
    ValuesMemory::Stage& stage = memory.stages[ring.stage];
    const bool last = i + 1 == count;
    const uint64_t next_marks = last ? 0 : MarksOf(segments, place.batch, order.At(i + 1));
    const TokenWeights& weights = memory.weights[ring.stage];
    const uint32_t x = hopper::SharedAddress(stage.x);
    const uint32_t y = hopper::SharedAddress(stage.y);
    const uint32_t z = hopper::SharedAddress(stage.z + group * kPanelBytes);

    float output[32];
    float sine_output[32];
    hopper::HoldRegisters(output);
    hopper::HoldRegisters(sine_output);
    const auto between = [&](int step) {
      if (step == 7 && i > 0 && here.lane == 0) {
        if (elected) {
          hopper::StoreWaitRead<0>();  // the output of the chunk before
        }
        hopper::BarrierArrive(&memory.empty[ring.stage == 0 ? kStages - 1 : ring.stage - 1]);
      }
    };
    const float state_decay = marks == 0 ? decay[segments.Length(chunk)] : 0.0F;
    IssueFromState<3>(state, state_decay, x, x, between, output, sine_output);
    hopper::ProductsWait<0>();
    hopper::HoldRegisters(output);
    hopper::HoldRegisters(sine_output);
    ScaleColumns(here, [&](int token) { return weights.of_state[token]; }, output, sine_output);
    hopper::BarrierWait(&memory.scored[i & 1], (i >> 1) & 1);
    hopper::HoldRegisters(output);
    hopper::HoldRegisters(sine_output);
    IssueScored(memory.rotated, opaque, hopper::SharedAddress(memory.scores[i & 1]), output,
                sine_output);
    hopper::ProductsWait<0>();
    hopper::HoldRegisters(output);
    hopper::HoldRegisters(sine_output);
    TurnBack(TokenAngles(memory.angles, memory.chunk[ring.stage], group * 64, here), sine_output,
             output);
    // Each warp writes what it alone has read.
    StoreTransposed(output, here, z);

    TokenFragments cosines;
    TokenFragments sines;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      Fetch(memory.rotated[0][k][opaque], cosines[k]);
      Fetch(memory.rotated[1][k][opaque], sines[k]);
    }
    ScaleTokens(here, [&](int token) { return weights.into_state[token]; }, cosines, sines);
    hopper::HoldRegisters(state.cosine);
    hopper::HoldRegisters(state.sine);
    hopper::ProductsBegin();
    IssueIntoState(cosines, y, state.cosine);
    IssueIntoState(sines, y, state.sine);
    hopper::ProductsCommit();
    // The next chunk's scores and rotation; after the last, this one's once more.
    Ring<kStages> next = ring;
    if (!last) {
      next.Advance();
      hopper::BarrierWait(&memory.full[next.stage], next.phase);
    }
    float scores[16];
    hopper::HoldRegisters(scores);
    issue_scores(memory.stages[next.stage], scores);
    rotate(next.stage);
    hopper::ProductsWait<0>();
    hopper::HoldRegisters(scores);
    hopper::HoldRegisters(state.cosine);
    hopper::HoldRegisters(state.sine);
    give_scores(next_marks, (i & 1) ^ 1, scores);
    hopper::NamedBarrier(kOutputBarrier + group, kWarpgroup);
    if (elected) {
      hopper::StoreBox(&p.output, stage.z + group * kPanelBytes, group * kPanelColumns, place.head,
                       chunk * kChunk, place.batch);
      hopper::StoreCommit();
    }
    ring = next;
    marks = next_marks;
  }
  if (elected) {
    hopper::StoreWaitRead<0>();
  }
}

}  // namespace

cudaError_t RotaryQueryGradient(const QueryGradientArgs& args, cudaStream_t stream) {
  const LinearAttentionShape& shape = args.problem.shape;
  RotaryParameters parameters{};
  if (const cudaError_t error = PlanSegments(args.problem, &parameters.segments);
      error != cudaSuccess) {
    return error;
  }
  parameters.layout = StateLayout::KeysByValues(static_cast<int>(shape.key_size),
                                                static_cast<int>(shape.value_size));
  parameters.segment_states = args.segment_starts;
  return LaunchRotary(
      RotaryValuesKernel<false>, sizeof(ValuesMemory), shape,
      {args.output_gradient, args.v, args.k, args.q_gradient, shape.value_size, shape.key_size},
      parameters, stream);
}

cudaError_t RotaryKeyGradient(const KeyValueGradientArgs& args, cudaStream_t stream) {
  const LinearAttentionShape& shape = args.problem.shape;
  RotaryParameters parameters{};
  if (const cudaError_t error = PlanSweep(args.problem, args.segment_state_gradients,
                                          &parameters.segments, &parameters.segment_states);
      error != cudaSuccess) {
    return error;
  }
  parameters.layout = StateLayout::KeysByValues(static_cast<int>(shape.key_size),
                                                static_cast<int>(shape.value_size));
  parameters.state_in = args.state_gradient_in;
  return LaunchRotary(
      RotaryValuesKernel<true>, sizeof(ValuesMemory), shape,
      {args.v, args.output_gradient, args.q, args.k_gradient, shape.value_size, shape.key_size},
      parameters, stream);
}

}  // namespace lasp::kernels::cuda
