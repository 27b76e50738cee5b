// The gradient of LRPE's learned frequencies, by distances.
//
//   dtheta_c = -sum over n >= m of (n - m) sin(theta_c (n - m)) lambda^{n-m} q_nc k_mc (do_n . v_m)
//
// Beside the state S of rotated keys by values, a second one, T, carries the distances:
//
//   T_n = lambda (T_{n-1} + S_{n-1}),   h_n = do_n T_n^T,
//   dtheta_c += sum over n of q_nc (h2_nc cos(theta_c n) - h1_nc sin(theta_c n))
//
// with h1, h2 the cosine and sine halves; at a border T counts to the token after it, the states'
// origin. T starts at zero in every segment and S whole, so that h has the part of a distance that
// lies in n's own segment; what lies in m's, and in those between, comes from the states at the
// segments' ends: sum of (T2 D1 - T1 D2) with D the gradient of the state there.
//
// The difference of a pair is about sin(theta_c (n - m)), its terms as large as the sines of the
// angles from the origin: to lose nothing to their rounding, positions count from the chunk's first
// token, and the states turn at each border. The other kernels' sums have no such difference.
//
// A thread block has one segment and 64 of a head's key columns. The first math warpgroup owns both
// halves of S and forms h1, the second those of T and forms h2.
#include "kernels/cuda/linear_attention_launch.cuh"
#include "kernels/cuda/linear_attention_rotary.cuh"
#include "kernels/cuda/linear_attention_rotary.h"
#include "kernels/cuda/linear_attention_rotary_table.cuh"
#include "kernels/cuda/linear_attention_theta_sums.h"
#include "kernels/cuda/linear_attention_tiles.cuh"

namespace lasp::kernels::cuda {
namespace {

constexpr int kStages = 2;

struct ThetaParameters {
  CUtensorMap x;  // do
  CUtensorMap y;  // v
  CUtensorMap z;  // k
  CUtensorMap q;
  Segments segments;
  const double* theta;
  int key_size;
  int value_size;
  int64_t half_elements;
  const float* segment_starts;
  const float* segment_state_gradients;  // or null: zeros
  const float* state_gradient_in;        // or null: zeros
  float* sums;                           // [batch, heads, segments, 2, key_size]
};

struct ThetaMemory {
  struct Stage {
    uint8_t x[kTileBytes];
    uint8_t y[kTileBytes];
    uint8_t z[kPanelBytes];
    uint8_t q[kPanelBytes];
  };

  alignas(1024) Stage stages[kStages];
  uint8_t z_sine[kPanelBytes];
  uint8_t state[2][kStateBytes];  // S, T: 64 rows of the cosine half, then 64 of the sine half
  RotaryTable table;
  Angle chunk_turn[kRotaryColumns];  // a whole chunk
  Angle last_turn[kRotaryColumns];   // the segment's last
  Angle end_turn[kRotaryColumns];    // from the sequence's end to the segment's
  float sums[2][4][kPanelColumns];
  float decay[DecayTable::kElements];
  uint64_t full[kStages];
  uint64_t empty[kStages];
};

enum NamedBarriers : uint32_t { kRotatedBarrier = 1, kDoneBarrier = 2 };

// Scores times their decay and distance, as the left operand of the next product.
__device__ void WeightScores(const DecayTable& decay, const FragmentLane& at, uint64_t marks,
                             float (&scores)[32], uint32_t (&operand)[4][4]) {
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    const int distance = at.row + 8 * ((i >> 1) & 1) - (8 * (i >> 2) + at.column + (i & 1));
    scores[i] *= static_cast<float>(distance);
  }
  DecayScores<false>(decay, at, marks, scores, operand);
}

// Moves the origin of a state's halves ahead, whose rows are a thread's two keys.
__device__ void Turn(Angle first, Angle second, float (&cosine)[64], float (&sine)[64]) {
#pragma unroll
  for (int i = 0; i < 64; ++i) {
    const Angle& turn = ((i >> 1) & 1) == 0 ? first : second;
    const float a = cosine[i];
    const float b = sine[i];
    cosine[i] = a * turn.cosine + b * turn.sine;
    sine[i] = b * turn.cosine - a * turn.sine;
  }
}

__global__ void __launch_bounds__(kBlockThreads, 1)
    ThetaGradientKernel(const __grid_constant__ ThetaParameters p) {
  extern __shared__ __align__(1024) uint8_t shared[];
  auto& memory = *reinterpret_cast<ThetaMemory*>(shared);
  const Segments& segments = p.segments;
  const int segment = static_cast<int>(blockIdx.x) / 2;
  const int panel = static_cast<int>(blockIdx.x) % 2;
  const int head = static_cast<int>(blockIdx.y);
  const int batch = static_cast<int>(blockIdx.z);
  const int thread = static_cast<int>(threadIdx.x);
  const int first = segments.FirstChunk(segment);
  const int end = segments.EndChunk(segment);
  const int64_t end_token = segments.EndToken(segment);
  const double slope = segments.slopes[head];
  const double* const theta = p.theta + static_cast<int64_t>(head) * p.key_size;
  const auto theta_of = [&](int column) { return column < p.key_size ? theta[column] : 0.0; };
  DecayTable decay(memory.decay);
  decay.Fill(slope, thread, kBlockThreads);
  memory.table.Fill(theta, p.key_size, thread, kBlockThreads);
  if (thread < kRotaryColumns) {
    memory.chunk_turn[thread] = AngleOf(theta_of(thread), kChunk);
    memory.last_turn[thread] = AngleOf(theta_of(thread), segments.Length(end - 1));
    // The states end at the token after the segment, where D has its origin.
    memory.end_turn[thread] = AngleOf(theta_of(thread), end_token - segments.tokens);
  }
  if (thread == 0) {
    for (int i = 0; i < kStages; ++i) {
      hopper::BarrierInit(&memory.full[i], 1);
      hopper::BarrierInit(&memory.empty[i], kMathThreads / 32);
    }
    hopper::FenceBarrierInit();
  }
  const bool cut = DocumentStartsIn(segments, batch, end, segments.chunks);
  const float factor = cut ? 0.0F : FarDecay(slope, segments.tokens - end_token);
  __syncthreads();

  if (thread >= kMathThreads) {
    hopper::LowerRegisters<kRotaryLoadRegisters>();
    if (thread > kMathThreads) {
      return;
    }
    Ring<kStages> ring;
    for (int chunk = first; chunk < end; ++chunk) {
      hopper::BarrierWait(&memory.empty[ring.stage], ring.phase ^ 1);
      uint64_t* const full = &memory.full[ring.stage];
      ThetaMemory::Stage& stage = memory.stages[ring.stage];
      hopper::BarrierArriveExpect(full, sizeof(stage));
      const int token = chunk * kChunk;
      for (int i = 0; i < 2; ++i) {
        hopper::LoadBox(&p.x, full, stage.x + i * kPanelBytes, i * kPanelColumns, head, token,
                        batch);
        hopper::LoadBox(&p.y, full, stage.y + i * kPanelBytes, i * kPanelColumns, head, token,
                        batch);
      }
      hopper::LoadBox(&p.z, full, stage.z, panel * kPanelColumns, head, token, batch);
      hopper::LoadBox(&p.q, full, stage.q, panel * kPanelColumns, head, token, batch);
      ring.Advance();
    }
    return;
  }

  hopper::RaiseRegisters<kRotaryMathRegisters>();
  const int group = UniformWarpgroup();
  const FragmentLane at(thread);
  const int64_t pair = static_cast<int64_t>(batch) * segments.heads + head;
  const int64_t segment_offset = (pair * segments.count + segment) * 2 * p.half_elements;
  const StateLayout layout = StateLayout::KeysByValues(p.key_size, p.value_size);
  float cosine[64];
  float sine[64];
#pragma unroll
  for (int i = 0; i < 64; ++i) {
    cosine[i] = 0;
    sine[i] = 0;
  }
  if (group == 0) {
    const float* const start = p.segment_starts + segment_offset;
    LoadState(layout, at, panel * 64, start, nullptr, 0, cosine);
    LoadState(layout, at, panel * 64, start + p.half_elements, nullptr, 0, sine);
  }
  const uint32_t s_panels = hopper::SharedAddress(memory.state[0]);
  const uint32_t t_panels = hopper::SharedAddress(memory.state[1]);
  const uint32_t own_panels = group == 0 ? s_panels : t_panels;
  float sums[16];
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    sums[i] = 0;
  }
  Ring<kStages> ring;
  for (int chunk = first; chunk < end; ++chunk) {
    ThetaMemory::Stage& stage = memory.stages[ring.stage];
    const FragmentLane here(Opaque(thread));
    const uint64_t marks = MarksOf(segments, batch, chunk);
    const int length = segments.Length(chunk);
    const int first_mark = FirstMark(marks);
    const int last_mark = LastMark(marks);
    hopper::BarrierWait(&memory.full[ring.stage], ring.phase);
    RotatePanel(memory.table, panel, stage.z, memory.z_sine, Opaque(thread));
    if (chunk > first) {
      const Angle* const turns = memory.chunk_turn + panel * 64 + here.row;
      Turn(turns[0], turns[8], cosine, sine);
    }
    StoreRounded(cosine, here, 0, own_panels, kStatePanelBytes);
    StoreRounded(sine, here, 64, own_panels, kStatePanelBytes);
    hopper::FenceAsyncShared();
    hopper::NamedBarrier(kRotatedBarrier, kMathThreads);

    // h = lambda^{i+1} (x T^T + i x S^T) + weighted scores z, of this warpgroup's half.
    const uint64_t x = hopper::OperandDescriptor(hopper::SharedAddress(stage.x), 0);
    const uint64_t y_along = hopper::OperandDescriptor(hopper::SharedAddress(stage.y), 0);
    const uint32_t half_rows = static_cast<uint32_t>(group * 64 * 128);
    float scores[32];
    float h[32];
    const auto issue_along = [&](uint64_t right, uint32_t panel_bytes, bool accumulate,
                                 float(&d)[32]) {
#pragma unroll
      for (int k = 0; k < 8; ++k) {
        hopper::Product<64, hopper::Major::kAlong>::FromShared(
            d, x + ((k / 4 * kPanelBytes + k % 4 * 32) >> 4),
            right + ((k / 4 * panel_bytes + k % 4 * 32) >> 4), accumulate || k > 0);
      }
    };
    hopper::HoldRegisters(scores);
    hopper::HoldRegisters(h);
    hopper::ProductsBegin();
    issue_along(y_along, kPanelBytes, false, scores);
    hopper::ProductsCommit();
    issue_along(hopper::OperandDescriptor(s_panels + half_rows, 0), kStatePanelBytes, false, h);
    hopper::ProductsCommit();
    hopper::ProductsWait<1>();
    hopper::HoldRegisters(scores);
    uint32_t operand[4][4];
    WeightScores(decay, here, marks, scores, operand);
    hopper::ProductsWait<0>();
    hopper::HoldRegisters(h);
    ScaleRows(static_cast<float>(here.row), static_cast<float>(here.row + 8), h);
    hopper::HoldRegisters(h);
    hopper::ProductsBegin();
    issue_along(hopper::OperandDescriptor(t_panels + half_rows, 0), kStatePanelBytes, true, h);
    hopper::ProductsCommit();
    hopper::ProductsWait<0>();
    hopper::HoldRegisters(h);
    ScaleRows(here.row < first_mark ? decay[here.row + 1] : 0.0F,
              here.row + 8 < first_mark ? decay[here.row + 9] : 0.0F, h);
    const uint32_t z = hopper::SharedAddress(stage.z);
    const uint32_t z_sine = hopper::SharedAddress(memory.z_sine);
    const uint64_t z_rows = hopper::OperandDescriptor(group == 0 ? z : z_sine, kPanelBytes);
    hopper::HoldRegisters(h);
    hopper::ProductsBegin();
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      hopper::Product<64, hopper::Major::kAcross>::FromRegisters(h, operand[k],
                                                                 z_rows + k * (2048 >> 4), true);
    }
    hopper::ProductsCommit();
    hopper::ProductsWait<0>();
    hopper::HoldRegisters(h);
    // Both warpgroups have read the states once all are here; T takes S in before S moves on.
    if (group == 0) {
      MultiplyByAngles<true>(memory.table, here, panel * kPanelColumns, h);
    } else {
      MultiplyByAngles<false>(memory.table, here, panel * kPanelColumns, h);
      const float tokens = marks == 0 ? static_cast<float>(length) : 0.0F;
#pragma unroll
      for (int i = 0; i < 64; i += 2) {
        const int row = here.row + 8 * ((i >> 1) & 1);
        const int n = i >> 2;
        const uint32_t offset = static_cast<uint32_t>(n / 8 * kStatePanelBytes) +
                                PieceOffset(row, n & 7) + static_cast<uint32_t>(2 * here.column);
        const uint32_t a = *reinterpret_cast<const uint32_t*>(memory.state[0] + offset);
        const uint32_t b = *reinterpret_cast<const uint32_t*>(memory.state[0] + 64 * 128 + offset);
        cosine[i] += tokens * hopper::LowOf(a);
        cosine[i + 1] += tokens * hopper::HighOf(a);
        sine[i] += tokens * hopper::LowOf(b);
        sine[i + 1] += tokens * hopper::HighOf(b);
      }
    }
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint32_t packed = *reinterpret_cast<const uint32_t*>(
            stage.q + PieceOffset(here.row + 8 * half, n) + 2 * here.column);
        sums[2 * n] += hopper::LowOf(packed) * h[4 * n + 2 * half];
        sums[2 * n + 1] += hopper::HighOf(packed) * h[4 * n + 2 * half + 1];
      }
    }
    TokenFragments cosines;
    TokenFragments sines;
    LoadTransposed(z, here, cosines);
    LoadTransposed(z_sine, here, sines);
    const auto weight_of = [&](int token) {
      const float weight = token >= last_mark ? decay[length - 1 - token] : 0.0F;
      return group == 0 ? weight : weight * static_cast<float>(length - token);
    };
    ScaleTokens(here, weight_of, cosines);
    ScaleTokens(here, weight_of, sines);
    const float state_decay = marks == 0 ? decay[length] : 0.0F;
    Scale(state_decay, cosine);
    Scale(state_decay, sine);
    const uint64_t y = hopper::OperandDescriptor(hopper::SharedAddress(stage.y), kPanelBytes);
    hopper::HoldRegisters(cosine);
    hopper::HoldRegisters(sine);
    hopper::ProductsBegin();
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      hopper::Product<128, hopper::Major::kAcross>::FromRegisters(cosine, cosines[k],
                                                                  y + k * (2048 >> 4), true);
      hopper::Product<128, hopper::Major::kAcross>::FromRegisters(sine, sines[k],
                                                                  y + k * (2048 >> 4), true);
    }
    hopper::ProductsCommit();
    hopper::ProductsWait<0>();
    hopper::HoldRegisters(cosine);
    hopper::HoldRegisters(sine);
    if (here.lane == 0) {
      hopper::BarrierArrive(&memory.empty[ring.stage]);
    }
    hopper::NamedBarrier(kDoneBarrier, kMathThreads);
    ring.Advance();
  }

  // Column sums over the tokens: lanes of a column, then warps, then the warpgroup's sign.
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    for (int offset = 4; offset < 32; offset *= 2) {
      sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], offset);
    }
    if (at.lane < 4) {
      memory.sums[group][at.warp][8 * (i / 2) + at.column + (i & 1)] = sums[i];
    }
  }
  hopper::NamedBarrier(kDoneBarrier, kMathThreads);
  float* const out = p.sums + (pair * segments.count + segment) * 2 * p.key_size;
  const int column = panel * kPanelColumns + thread;
  if (thread < kPanelColumns && column < p.key_size) {
    float sum = 0;
    for (int warp = 0; warp < 4; ++warp) {
      sum += memory.sums[1][warp][thread] - memory.sums[0][warp][thread];
    }
    out[column] = sum;
  }
  // The states' part: T2 D1 - T1 D2 summed over values, rows being keys.
  if (group == 1) {
    const Angle* const turns = memory.last_turn + panel * 64 + at.row;
    Turn(turns[0], turns[8], cosine, sine);
    const float* const near =
        p.segment_state_gradients == nullptr ? nullptr : p.segment_state_gradients + segment_offset;
    const float* const far =
        p.state_gradient_in == nullptr ? nullptr : p.state_gradient_in + pair * 2 * p.half_elements;
    float rows[2] = {0, 0};
    const Angle turn[2] = {memory.end_turn[panel * 64 + at.row],
                           memory.end_turn[panel * 64 + at.row + 8]};
#pragma unroll
    for (int i = 0; i < 64; ++i) {
      const StateElement element(layout, at, panel * 64, i);
      if (!element.exists) {
        continue;
      }
      const int half = (i >> 1) & 1;
      float d1 = near == nullptr ? 0.0F : near[element.offset];
      float d2 = near == nullptr ? 0.0F : near[p.half_elements + element.offset];
      if (far != nullptr && factor != 0) {
        const float a = far[element.offset];
        const float b = far[p.half_elements + element.offset];
        d1 += factor * (a * turn[half].cosine + b * turn[half].sine);
        d2 += factor * (b * turn[half].cosine - a * turn[half].sine);
      }
      rows[half] += sine[i] * d1 - cosine[i] * d2;
    }
    for (int half = 0; half < 2; ++half) {
      rows[half] += __shfl_xor_sync(0xffffffffu, rows[half], 1);
      rows[half] += __shfl_xor_sync(0xffffffffu, rows[half], 2);
      const int row = panel * kPanelColumns + at.row + 8 * half;
      if (at.lane % 4 == 0 && row < p.key_size) {
        out[p.key_size + row] = rows[half];
      }
    }
  }
}

}  // namespace

cudaError_t ThetaGradient(const ThetaGradientArgs& args, cudaStream_t stream) {
  ThetaParameters parameters{};
  const LinearAttentionShape& shape = args.problem.shape;
  if (const cudaError_t error =
          PlanSweep(args.problem, args.segment_state_gradients, &parameters.segments,
                    &parameters.segment_state_gradients);
      error != cudaSuccess) {
    return error;
  }
  if (shape.theta == nullptr || args.segment_starts == nullptr || args.workspace == nullptr) {
    return cudaErrorInvalidValue;
  }
  parameters.theta = shape.theta;
  parameters.key_size = static_cast<int>(shape.key_size);
  parameters.value_size = static_cast<int>(shape.value_size);
  parameters.half_elements = shape.key_size * shape.value_size;
  parameters.segment_starts = args.segment_starts;
  parameters.state_gradient_in = args.state_gradient_in;
  parameters.sums = args.workspace;
  if (const cudaError_t error = LaunchSegments(
          ThetaGradientKernel, sizeof(ThetaMemory), 2 * parameters.segments.count, shape,
          {{args.output_gradient, shape.value_size, &parameters.x},
           {args.v, shape.value_size, &parameters.y},
           {args.k, shape.key_size, &parameters.z},
           {args.q, shape.key_size, &parameters.q}},
          parameters, stream);
      error != cudaSuccess) {
    return error;
  }
  return AddThetaSums(shape, parameters.segments.count, args.workspace, args.theta_gradient,
                      stream);
}

}  // namespace lasp::kernels::cuda
