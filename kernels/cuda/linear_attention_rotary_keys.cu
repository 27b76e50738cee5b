// Linear attention with LRPE where what is rotated is contracted with the state: o = LA(q~, k~, v)
// and dv = LAr(k~, q~, do).
#include "kernels/cuda/linear_attention_rotary_sweep.cuh"

namespace lasp::kernels::cuda {
namespace {

struct KeysMemory {
  alignas(1024) RotaryStage stages[kRotaryStages];
  uint8_t x_sine[kTileBytes];
  uint8_t y_sine[kTileBytes];
  uint8_t state[2 * kStateBytes];  // 128 rows; panels of the cosine half, then of the sine half
  RotaryControl control;
};

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

  Ring<kRotaryStages> ring;
  for (int i = 0; i < place.end - place.first; ++i) {
    const int chunk = order.At(i);
    const int opaque = Opaque(thread);
    const FragmentLane here(opaque);
    RotaryStage& stage = memory.stages[ring.stage];
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
  return LaunchRotary(RotaryKeysKernel<false>, sizeof(KeysMemory), shape,
                      {{args.q, shape.key_size},
                       {args.k, shape.key_size},
                       {args.v, shape.value_size},
                       {args.output, shape.value_size}},
                      parameters, stream);
}

cudaError_t RotaryValueGradient(const KeyValueGradientArgs& args, cudaStream_t stream) {
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
  parameters.layout = StateLayout::ValuesByKeys(static_cast<int>(shape.key_size),
                                                static_cast<int>(shape.value_size));
  return LaunchRotary(RotaryKeysKernel<true>, sizeof(KeysMemory), shape,
                      {{args.k, shape.key_size},
                       {args.q, shape.key_size},
                       {args.output_gradient, shape.value_size},
                       {args.v_gradient, shape.value_size}},
                      parameters, stream);
}

}  // namespace lasp::kernels::cuda
