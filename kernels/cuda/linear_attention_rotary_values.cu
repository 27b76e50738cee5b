// Linear attention with LRPE where what the state gives is rotated, and turned back: dq~ =
// LA(do, v, k~) and dk~ = LAr(v, do, q~).
#include "kernels/cuda/linear_attention_rotary_sweep.cuh"

namespace lasp::kernels::cuda {
namespace {

struct ValuesMemory {
  alignas(1024) RotaryStage stages[kRotaryStages];
  uint8_t z_sine[kTileBytes];
  uint8_t output[kTileBytes];
  uint8_t state[2 * kStateBytes];  // 256 rows: the cosine half, then the sine half
  RotaryControl control;
};

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

  Ring<kRotaryStages> ring;
  for (int i = 0; i < place.end - place.first; ++i) {
    const int chunk = order.At(i);
    const int opaque = Opaque(thread);
    const FragmentLane here(opaque);
    RotaryStage& stage = memory.stages[ring.stage];
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

}  // namespace

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
  return LaunchRotary(RotaryValuesKernel<false>, sizeof(ValuesMemory), shape,
                      {{args.output_gradient, shape.value_size},
                       {args.v, shape.value_size},
                       {args.k, shape.key_size},
                       {args.q_gradient, shape.key_size}},
                      parameters, stream);
}

cudaError_t RotaryKeyGradient(const KeyValueGradientArgs& args, cudaStream_t stream) {
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
  parameters.layout = StateLayout::KeysByValues(static_cast<int>(shape.key_size),
                                                static_cast<int>(shape.value_size));
  return LaunchRotary(RotaryValuesKernel<true>, sizeof(ValuesMemory), shape,
                      {{args.v, shape.value_size},
                       {args.output_gradient, shape.value_size},
                       {args.q, shape.key_size},
                       {args.k_gradient, shape.key_size}},
                      parameters, stream);
}

}  // namespace lasp::kernels::cuda
