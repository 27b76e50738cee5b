// The sweep of linear attention: o from q, k, v, and dq from do, v, k, forward in time.
//
// With LA(X, Y, Z)_i = sum_{j <= i} lambda^{i-j} (x_i . y_j) z_j, o = LA(q, k, v) and
// dq = LA(do, v, k): one kernel, whose state is Z's columns by Y's. A thread block has one segment
// of one head. Of its two math warpgroups, each owns 64 of the output's columns and those rows of
// the state, in fp32 registers, and computes the chunk's scores for itself, so that the two never
// wait for each other: one's products run under the other's arithmetic.
#include "kernels/cuda/linear_attention.h"
#include "kernels/cuda/linear_attention_launch.cuh"
#include "kernels/cuda/linear_attention_rotary.h"
#include "kernels/cuda/linear_attention_segments.h"
#include "kernels/cuda/linear_attention_tiles.cuh"

namespace lasp::kernels::cuda {
namespace {

constexpr int kStages = 3;

struct SweepParameters {
  CUtensorMap x;
  CUtensorMap y;
  CUtensorMap z;
  CUtensorMap output;
  Segments segments;
  StateLayout layout;
  int64_t state_elements;
  const float* segment_states;  // [batch, heads, segments]; null: zeros
  const float* state_in;        // [batch, heads]: joins them, decayed; null: zeros
  float* segment_starts;        // their sum is kept here, or null
  float* state_out;             // the state after the slice, or null
};

struct SweepMemory {
  struct Stage {
    uint8_t x[kTileBytes];
    uint8_t y[kTileBytes];
    uint8_t z[kTileBytes];
  };

  alignas(1024) Stage stages[kStages];
  uint8_t state[kStateBytes];
  uint8_t output[2][kTileBytes];
  float decay[DecayTable::kElements];
  uint64_t full[kStages];
  uint64_t empty[kStages];
};

__device__ void LoadChunks(const SweepParameters& parameters, SweepMemory& memory, int first,
                           int end, int head, int batch) {
  Ring<kStages> ring;
  for (int chunk = first; chunk < end; ++chunk) {
    hopper::BarrierWait(&memory.empty[ring.stage], ring.phase ^ 1);
    uint64_t* const full = &memory.full[ring.stage];
    SweepMemory::Stage& stage = memory.stages[ring.stage];
    hopper::BarrierArriveExpect(full, sizeof(stage));
    const int token = chunk * kChunk;
    for (int panel = 0; panel < 2; ++panel) {
      const int column = panel * kPanelColumns;
      const int offset = panel * kPanelBytes;
      hopper::LoadBox(&parameters.x, full, stage.x + offset, column, head, token, batch);
      hopper::LoadBox(&parameters.y, full, stage.y + offset, column, head, token, batch);
      hopper::LoadBox(&parameters.z, full, stage.z + offset, column, head, token, batch);
    }
    ring.Advance();
  }
}

// scores = x y^T over all columns of two tiles.
__device__ void IssueScores(const SweepMemory::Stage& stage, float (&scores)[32]) {
  const uint64_t x = hopper::OperandDescriptor(hopper::SharedAddress(stage.x), 0);
  const uint64_t y = hopper::OperandDescriptor(hopper::SharedAddress(stage.y), 0);
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    const int step = (k / 4 * kPanelBytes + k % 4 * 32) >> 4;
    hopper::Product<64, hopper::Major::kAlong>::FromShared(scores, x + step, y + step, k > 0);
  }
}

__global__ void __launch_bounds__(kBlockThreads, 1)
    SweepKernel(const __grid_constant__ SweepParameters parameters) {
  extern __shared__ __align__(1024) uint8_t shared[];
  auto& memory = *reinterpret_cast<SweepMemory*>(shared);
  const Segments& segments = parameters.segments;
  const int segment = static_cast<int>(blockIdx.x);
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
  const int first = segments.FirstChunk(segment);
  const int end = segments.EndChunk(segment);
  const bool cut = DocumentStartsIn(segments, batch, 0, first);
  __syncthreads();

  if (thread >= kMathThreads) {
    hopper::LowerRegisters<kLoadRegisters>();
    if (thread == kMathThreads) {
      LoadChunks(parameters, memory, first, end, head, batch);
    }
    return;
  }
  hopper::RaiseRegisters<kMathRegisters>();
  const int group = UniformWarpgroup();
  const FragmentLane at(thread);
  const int64_t pair = static_cast<int64_t>(batch) * segments.heads + head;
  const int64_t segment_offset = (pair * segments.count + segment) * parameters.state_elements;

  float state[64];
  LoadState(
      parameters.layout, at, group * 64,
      parameters.segment_states == nullptr ? nullptr : parameters.segment_states + segment_offset,
      parameters.state_in == nullptr ? nullptr
                                     : parameters.state_in + pair * parameters.state_elements,
      cut ? 0.0F : FarDecay(slope, static_cast<int64_t>(first) * kChunk), state);
  if (parameters.segment_starts != nullptr) {
    StoreState(parameters.layout, at, group * 64, state,
               parameters.segment_starts + segment_offset);
  }

  const uint32_t state_panels = hopper::SharedAddress(memory.state);
  const uint64_t state_operand = hopper::OperandDescriptor(state_panels + group * 64 * 128, 0);
  const float first_row_decay = decay[at.row + 1];
  const float second_row_decay = decay[at.row + 9];

  float scores[32];
  Ring<kStages> ring;
  hopper::BarrierWait(&memory.full[0], 0);
  hopper::HoldRegisters(scores);
  hopper::ProductsBegin();
  IssueScores(memory.stages[0], scores);
  hopper::ProductsCommit();
  StoreRounded(state, at, group * 64, state_panels, kStatePanelBytes);
  hopper::FenceAsyncShared();
  hopper::ProductsWait<0>();
  hopper::HoldRegisters(scores);
  hopper::NamedBarrier(1 + group, kWarpgroup);
  uint64_t marks = MarksOf(segments, batch, first);

  for (int chunk = first; chunk < end; ++chunk) {
    const SweepMemory::Stage& stage = memory.stages[ring.stage];
    const int length = segments.Length(chunk);
    const bool last = chunk + 1 == end;
    const uint64_t next_marks = last ? 0 : MarksOf(segments, batch, chunk + 1);

    // output = x state
    float output[32];
    hopper::HoldRegisters(output);
    hopper::ProductsBegin();
    const uint64_t x = hopper::OperandDescriptor(hopper::SharedAddress(stage.x), 0);
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      hopper::Product<64, hopper::Major::kAlong>::FromShared(
          output, x + ((k / 4 * kPanelBytes + k % 4 * 32) >> 4),
          state_operand + ((k / 4 * kStatePanelBytes + k % 4 * 32) >> 4), k > 0);
    }
    hopper::ProductsCommit();

    TokenFragments values;
    LoadTransposed(hopper::SharedAddress(stage.z + group * kPanelBytes), at, values);
    const int last_mark = LastMark(marks);
    ScaleTokens(
        at, [&](int token) { return token >= last_mark ? decay[length - 1 - token] : 0.0F; },
        values);

    uint32_t operand[4][4];
    DecayScores<false>(decay, at, marks, scores, operand);
    Scale(marks == 0 ? decay[length] : 0.0F, state);

    hopper::ProductsWait<0>();
    hopper::HoldRegisters(output);
    const int first_mark = FirstMark(marks);
    ScaleRows(at.row < first_mark ? first_row_decay : 0.0F,
              at.row + 8 < first_mark ? second_row_decay : 0.0F, output);

    // output += scores z
    hopper::HoldRegisters(output);
    hopper::HoldRegisters(state);
    hopper::ProductsBegin();
    const uint64_t z = hopper::OperandDescriptor(
        hopper::SharedAddress(stage.z + group * kPanelBytes), kPanelBytes);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      hopper::Product<64, hopper::Major::kAcross>::FromRegisters(output, operand[k],
                                                                 z + k * (2048 >> 4), true);
    }
    hopper::ProductsCommit();
    // state += z^T y
    const uint64_t y = hopper::OperandDescriptor(hopper::SharedAddress(stage.y), kPanelBytes);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      hopper::Product<128, hopper::Major::kAcross>::FromRegisters(state, values[k],
                                                                  y + k * (2048 >> 4), true);
    }
    hopper::ProductsCommit();
    // The next chunk's scores; after the last, this one's once more.
    Ring<kStages> next = ring;
    if (!last) {
      next.Advance();
      hopper::BarrierWait(&memory.full[next.stage], next.phase);
    }
    hopper::ProductsBegin();
    IssueScores(memory.stages[next.stage], scores);
    hopper::ProductsCommit();

    hopper::ProductsWait<2>();
    hopper::HoldRegisters(output);
    uint8_t* const staged = memory.output[chunk & 1] + group * kPanelBytes;
    StoreRounded(output, at, 0, hopper::SharedAddress(staged), kPanelBytes);
    hopper::ProductsWait<1>();
    hopper::HoldRegisters(state);
    if (at.lane == 0 && !last) {
      hopper::BarrierArrive(&memory.empty[ring.stage]);
    }
    StoreRounded(state, at, group * 64, state_panels, kStatePanelBytes);
    hopper::FenceAsyncShared();
    hopper::ProductsWait<0>();
    hopper::HoldRegisters(scores);
    if (thread % kWarpgroup == 0) {
      hopper::StoreWaitRead<0>();  // of the chunk before: frees the other buffer
    }
    hopper::NamedBarrier(1 + group, kWarpgroup);
    if (thread % kWarpgroup == 0) {
      hopper::StoreBox(&parameters.output, staged, group * kPanelColumns, head, chunk * kChunk,
                       batch);
      hopper::StoreCommit();
    }
    ring = next;
    marks = next_marks;
  }
  if (parameters.state_out != nullptr && segment == segments.count - 1) {
    StoreState(parameters.layout, at, group * 64, state,
               parameters.state_out + pair * parameters.state_elements);
  }
  if (thread % kWarpgroup == 0) {
    hopper::StoreWaitRead<0>();
  }
}

// The views of a sweep, with the widths of X and Y (the keys' of its state) and of Z and the
// output.
struct SweepViews {
  HeadsView<const Bf16> x;
  HeadsView<const Bf16> y;
  HeadsView<const Bf16> z;
  HeadsView<Bf16> output;
  int64_t key_size;
  int64_t value_size;
};

cudaError_t LaunchSweep(const LinearAttentionShape& shape, const SweepViews& views,
                        SweepParameters& parameters, cudaStream_t stream) {
  parameters.state_elements = StateRows(shape) * shape.value_size;
  return LaunchSegments(SweepKernel, sizeof(SweepMemory), parameters.segments.count, shape,
                        {{views.x, views.key_size, &parameters.x},
                         {views.y, views.key_size, &parameters.y},
                         {views.z, views.value_size, &parameters.z},
                         {views.output, views.value_size, &parameters.output}},
                        parameters, stream);
}

}  // namespace

cudaError_t Output(const OutputArgs& args, cudaStream_t stream) {
  if (args.problem.shape.theta != nullptr) {
    return RotaryOutput(args, stream);
  }
  SweepParameters parameters{};
  const LinearAttentionShape& shape = args.problem.shape;
  if (const cudaError_t error = PlanSweep(args.problem, args.segment_states, &parameters.segments,
                                          &parameters.segment_states);
      error != cudaSuccess) {
    return error;
  }
  parameters.layout = StateLayout::ValuesByKeys(static_cast<int>(shape.key_size),
                                                static_cast<int>(shape.value_size));
  parameters.state_in = args.state_in;
  parameters.segment_starts = args.segment_starts;
  parameters.state_out = args.state_out;
  return LaunchSweep(shape, {args.q, args.k, args.v, args.output, shape.key_size, shape.value_size},
                     parameters, stream);
}

cudaError_t QueryGradient(const QueryGradientArgs& args, cudaStream_t stream) {
  if (args.problem.shape.theta != nullptr) {
    return RotaryQueryGradient(args, stream);
  }
  SweepParameters parameters{};
  const LinearAttentionShape& shape = args.problem.shape;
  if (const cudaError_t error = PlanSegments(args.problem, &parameters.segments);
      error != cudaSuccess) {
    return error;
  }
  parameters.layout = StateLayout::KeysByValues(static_cast<int>(shape.key_size),
                                                static_cast<int>(shape.value_size));
  parameters.segment_states = args.segment_starts;
  return LaunchSweep(
      shape,
      {args.output_gradient, args.v, args.k, args.q_gradient, shape.value_size, shape.key_size},
      parameters, stream);
}

}  // namespace lasp::kernels::cuda
