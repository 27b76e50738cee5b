// The gradients of keys and values in one sweep, backwards in time.
//
// With R_i = sum_{j >= i} lambda^{j-i} q_j^T do_j + lambda^{C-1-i} dKV_in:  dv_i = k_i R_i and
// dk_i = v_i R_i^T. The first math warpgroup computes dv, the second dk; each also owns half of R's
// rows in fp32 registers. Both halves are rounded to shared memory once a chunk, where one reads
// them as R and the other as R^T; two buffers, so that one barrier a chunk is enough.
#include "kernels/cuda/linear_attention.h"
#include "kernels/cuda/linear_attention_launch.cuh"
#include "kernels/cuda/linear_attention_rotary.h"
#include "kernels/cuda/linear_attention_segments.h"
#include "kernels/cuda/linear_attention_tiles.cuh"

namespace lasp::kernels::cuda {
namespace {

constexpr int kStages = 2;

struct GradientParameters {
  CUtensorMap q;
  CUtensorMap k;
  CUtensorMap v;
  CUtensorMap output_gradient;
  CUtensorMap k_gradient;
  CUtensorMap v_gradient;
  Segments segments;
  StateLayout layout;
  int64_t state_elements;
  const float* segment_state_gradients;  // [batch, heads, segments]; null: zeros
  const float* state_gradient_in;        // [batch, heads]: joins them, decayed; null: zeros
};

struct GradientMemory {
  struct Stage {
    uint8_t q[kTileBytes];
    uint8_t k[kTileBytes];
    uint8_t v[kTileBytes];
    uint8_t output_gradient[kTileBytes];
  };

  alignas(1024) Stage stages[kStages];
  uint8_t state[2][kStateBytes];
  uint8_t output[2][kTileBytes];  // of dv, of dk
  float decay[DecayTable::kElements];
  uint64_t full[kStages];
  uint64_t empty[kStages];
};

enum NamedBarriers : uint32_t { kStateBarrier = 1, kOutputBarrier = 2 };  // and one more

__device__ void LoadChunks(const GradientParameters& parameters, GradientMemory& memory, int first,
                           int end, int head, int batch) {
  Ring<kStages> ring;
  for (int chunk = end - 1; chunk >= first; --chunk) {
    hopper::BarrierWait(&memory.empty[ring.stage], ring.phase ^ 1);
    uint64_t* const full = &memory.full[ring.stage];
    GradientMemory::Stage& stage = memory.stages[ring.stage];
    hopper::BarrierArriveExpect(full, sizeof(stage));
    const int token = chunk * kChunk;
    for (int panel = 0; panel < 2; ++panel) {
      const int column = panel * kPanelColumns;
      const int offset = panel * kPanelBytes;
      hopper::LoadBox(&parameters.q, full, stage.q + offset, column, head, token, batch);
      hopper::LoadBox(&parameters.k, full, stage.k + offset, column, head, token, batch);
      hopper::LoadBox(&parameters.v, full, stage.v + offset, column, head, token, batch);
      hopper::LoadBox(&parameters.output_gradient, full, stage.output_gradient + offset, column,
                      head, token, batch);
    }
    ring.Advance();
  }
}

// What one math warpgroup does: output = X R (R transposed for dk), with scores X Y^T and values Z.
template <bool kKeys>
struct Role {
  static __device__ uint32_t X(const GradientMemory::Stage& stage) {
    return hopper::SharedAddress(kKeys ? stage.v : stage.k);
  }

  static __device__ uint32_t Y(const GradientMemory::Stage& stage) {
    return hopper::SharedAddress(kKeys ? stage.output_gradient : stage.q);
  }

  static __device__ uint32_t Z(const GradientMemory::Stage& stage) {
    return hopper::SharedAddress(kKeys ? stage.q : stage.output_gradient);
  }

  static __device__ void IssueScores(const GradientMemory::Stage& stage, float (&scores)[32]) {
    const uint64_t x = hopper::OperandDescriptor(X(stage), 0);
    const uint64_t y = hopper::OperandDescriptor(Y(stage), 0);
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      const int step = (k / 4 * kPanelBytes + k % 4 * 32) >> 4;
      hopper::Product<64, hopper::Major::kAlong>::FromShared(scores, x + step, y + step, k > 0);
    }
  }

  // R lies in shared memory with its value side as rows: k contracts its columns, v its rows.
  static __device__ void IssueFromState(const GradientMemory::Stage& stage, uint32_t state,
                                        float (&output)[64]) {
    const uint64_t x = hopper::OperandDescriptor(X(stage), 0);
    const uint64_t r = hopper::OperandDescriptor(state, kStatePanelBytes);
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      const int step = (k / 4 * kPanelBytes + k % 4 * 32) >> 4;
      if constexpr (kKeys) {
        hopper::Product<128, hopper::Major::kAcross>::FromShared(output, x + step,
                                                                 r + k * (2048 >> 4), k > 0);
      } else {
        hopper::Product<128, hopper::Major::kAlong>::FromShared(
            output, x + step, r + ((k / 4 * kStatePanelBytes + k % 4 * 32) >> 4), k > 0);
      }
    }
  }

  static __device__ void Run(const GradientParameters& parameters, GradientMemory& memory,
                             const DecayTable& decay, int first, int end, int segment, int head,
                             int batch, float far) {
    constexpr int kGroup = kKeys ? 1 : 0;
    const Segments& segments = parameters.segments;
    const int thread = static_cast<int>(threadIdx.x) % kWarpgroup;
    const FragmentLane at(thread);
    const int64_t pair = static_cast<int64_t>(batch) * segments.heads + head;

    float state[64];
    LoadState(parameters.layout, at, kGroup * 64,
              parameters.segment_state_gradients == nullptr
                  ? nullptr
                  : parameters.segment_state_gradients +
                        (pair * segments.count + segment) * parameters.state_elements,
              parameters.state_gradient_in == nullptr
                  ? nullptr
                  : parameters.state_gradient_in + pair * parameters.state_elements,
              far, state);

    float scores[32];
    Ring<kStages> ring;
    hopper::BarrierWait(&memory.full[0], 0);
    hopper::HoldRegisters(scores);
    hopper::ProductsBegin();
    IssueScores(memory.stages[0], scores);
    hopper::ProductsCommit();
    StoreRounded(state, at, kGroup * 64, hopper::SharedAddress(memory.state[0]), kStatePanelBytes);
    hopper::FenceAsyncShared();
    hopper::ProductsWait<0>();
    hopper::HoldRegisters(scores);
    hopper::NamedBarrier(kStateBarrier, kMathThreads);
    uint64_t marks = MarksOf(segments, batch, end - 1);
    int buffer = 0;

    for (int chunk = end - 1; chunk >= first; --chunk) {
      const GradientMemory::Stage& stage = memory.stages[ring.stage];
      const int length = segments.Length(chunk);
      const bool last = chunk == first;
      const uint64_t next_marks = last ? 0 : MarksOf(segments, batch, chunk - 1);

      float output[64];
      hopper::HoldRegisters(output);
      hopper::ProductsBegin();
      IssueFromState(stage, hopper::SharedAddress(memory.state[buffer]), output);
      hopper::ProductsCommit();

      TokenFragments values;
      LoadTransposed(hopper::SharedAddress(stage.output_gradient + kGroup * kPanelBytes), at,
                     values);
      const int first_mark = FirstMark(marks);
      ScaleTokens(
          at, [&](int token) { return token < first_mark ? decay[token + 1] : 0.0F; }, values);
      uint32_t operand[4][4];
      DecayScores<true>(decay, at, marks, scores, operand);
      Scale(marks == 0 ? decay[length] : 0.0F, state);
      if (thread == 0) {
        hopper::StoreWaitRead<0>();  // of the chunk before
      }
      hopper::NamedBarrier(kOutputBarrier + kGroup, kWarpgroup);

      hopper::ProductsWait<0>();
      hopper::HoldRegisters(output);
      const int last_mark = LastMark(marks);
      const auto row_decay = [&](int row) {
        return row >= last_mark ? decay[length - 1 - row] : 0.0F;
      };
      ScaleRows(row_decay(at.row), row_decay(at.row + 8), output);

      hopper::HoldRegisters(output);
      hopper::HoldRegisters(state);
      hopper::ProductsBegin();
      const uint64_t z = hopper::OperandDescriptor(Z(stage), kPanelBytes);
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        hopper::Product<128, hopper::Major::kAcross>::FromRegisters(output, operand[k],
                                                                    z + k * (2048 >> 4), true);
      }
      hopper::ProductsCommit();
      const uint64_t q = hopper::OperandDescriptor(hopper::SharedAddress(stage.q), kPanelBytes);
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        hopper::Product<128, hopper::Major::kAcross>::FromRegisters(state, values[k],
                                                                    q + k * (2048 >> 4), true);
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
      StoreRounded(output, at, 0, hopper::SharedAddress(memory.output[kGroup]), kPanelBytes);
      hopper::ProductsWait<1>();
      hopper::HoldRegisters(state);
      if (at.lane == 0 && !last) {
        hopper::BarrierArrive(&memory.empty[ring.stage]);
      }
      buffer ^= 1;
      StoreRounded(state, at, kGroup * 64, hopper::SharedAddress(memory.state[buffer]),
                   kStatePanelBytes);
      hopper::FenceAsyncShared();
      hopper::ProductsWait<0>();
      hopper::HoldRegisters(scores);
      hopper::NamedBarrier(kStateBarrier, kMathThreads);
      if (thread == 0) {
        for (int panel = 0; panel < 2; ++panel) {
          hopper::StoreBox(kKeys ? &parameters.k_gradient : &parameters.v_gradient,
                           memory.output[kGroup] + panel * kPanelBytes, panel * kPanelColumns, head,
                           chunk * kChunk, batch);
        }
        hopper::StoreCommit();
      }
      ring = next;
      marks = next_marks;
    }
    if (thread == 0) {
      hopper::StoreWaitRead<0>();
    }
  }
};

__global__ void __launch_bounds__(kBlockThreads, 1)
    KeyValueGradientKernel(const __grid_constant__ GradientParameters parameters) {
  extern __shared__ __align__(1024) uint8_t shared[];
  auto& memory = *reinterpret_cast<GradientMemory*>(shared);
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
  const bool cut = DocumentStartsIn(segments, batch, end, segments.chunks);
  __syncthreads();

  if (thread >= kMathThreads) {
    hopper::LowerRegisters<kLoadRegisters>();
    if (thread == kMathThreads) {
      LoadChunks(parameters, memory, first, end, head, batch);
    }
    return;
  }
  hopper::RaiseRegisters<kMathRegisters>();
  const float far = cut ? 0.0F : FarDecay(slope, segments.tokens - segments.EndToken(segment));
  if (thread < kWarpgroup) {
    Role<false>::Run(parameters, memory, decay, first, end, segment, head, batch, far);
  } else {
    Role<true>::Run(parameters, memory, decay, first, end, segment, head, batch, far);
  }
}

}  // namespace

cudaError_t KeyValueGradient(const KeyValueGradientArgs& args, cudaStream_t stream) {
  if (args.problem.shape.theta != nullptr) {
    const cudaError_t error = RotaryValueGradient(args, stream);
    return error == cudaSuccess ? RotaryKeyGradient(args, stream) : error;
  }
  GradientParameters parameters{};
  const LinearAttentionShape& shape = args.problem.shape;
  if (const cudaError_t error =
          PlanSweep(args.problem, args.segment_state_gradients, &parameters.segments,
                    &parameters.segment_state_gradients);
      error != cudaSuccess) {
    return error;
  }
  parameters.layout = StateLayout::ValuesByKeys(static_cast<int>(shape.key_size),
                                                static_cast<int>(shape.value_size));
  parameters.state_elements = StateRows(shape) * shape.value_size;
  parameters.state_gradient_in = args.state_gradient_in;
  return LaunchSegments(KeyValueGradientKernel, sizeof(GradientMemory), parameters.segments.count,
                        shape,
                        {{args.q, shape.key_size, &parameters.q},
                         {args.k, shape.key_size, &parameters.k},
                         {args.v, shape.value_size, &parameters.v},
                         {args.output_gradient, shape.value_size, &parameters.output_gradient},
                         {args.k_gradient, shape.key_size, &parameters.k_gradient},
                         {args.v_gradient, shape.value_size, &parameters.v_gradient}},
                        parameters, stream);
}

}  // namespace lasp::kernels::cuda
