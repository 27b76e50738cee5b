// A thread block has 128 rows of X, 64 a math warpgroup, which holds all columns of their output in
// registers; tiles of 64 tokens of Y and Z pass by, loaded by a warp of its own. A tile's scores
// are formed while the products of the tile before with Z are still under way.
//
// A score's decay is lambda^e, e the tokens between. For a tile of the other side that lies wholly
// before (or behind) the rows it is cut in three factors with no exponent positive: one a column,
// one a tile, and one a row, which is left to the end. The tile that the rows themselves are in
// comes last.
#include "kernels/cuda/left_product_sweep.h"
#include "kernels/cuda/linear_attention_tiles.cuh"
#include "kernels/cuda/tensor_map.h"

namespace lasp::kernels::cuda {
namespace {

struct Parameters {
  CUtensorMap x[2];
  CUtensorMap y[2];
  CUtensorMap z;
  CUtensorMap output;
  HeadsView<Bf16> old_output;  // data null: none
  const double* slopes;
  int64_t tokens;
  int64_t distance;
  int chunks;
  int output_size;
  bool reversed;
};

template <int kHalves>
struct SweepMemory {
  static constexpr int kStages = kHalves == 1 ? 4 : 3;

  struct Stage {
    uint8_t y[kHalves][kTileBytes];
    uint8_t z[kTileBytes];
  };

  alignas(1024) Stage stages[kStages];
  // Of each warpgroup; at the end its output.
  uint8_t x[2][kHalves][kTileBytes];
  float decay[DecayTable::kElements];
  uint64_t full[kStages];
  uint64_t empty[kStages];
  uint64_t x_full;
};

// Which tiles of Y and Z pass by a block's rows, and which a warpgroup takes part in.
struct Passage {
  int tiles;   // that pass by
  int taken;   // the first so many
  bool meets;  // the last of them is the one that the rows are in
  int row_chunk;
  bool reversed;
  int chunks;

  __device__ Passage(const Parameters& parameters, int block, int group)
      : row_chunk(2 * block + group), reversed(parameters.reversed), chunks(parameters.chunks) {
    const bool own = parameters.distance == 0;
    const int last_row_chunk = min(2 * block + 1, chunks - 1);
    tiles = !own ? chunks : reversed ? chunks - 2 * block : last_row_chunk + 1;
    meets = own && row_chunk < chunks;
    taken = row_chunk >= chunks ? 0 : !own ? chunks : reversed ? chunks - row_chunk : row_chunk + 1;
  }

  __device__ int ChunkAt(int tile) const { return reversed ? chunks - 1 - tile : tile; }

  // Tokens from the rows' chunk to a tile's, either way.
  __device__ int64_t Between(int tile) const {
    const int chunk = ChunkAt(tile);
    return static_cast<int64_t>(reversed ? chunk - row_chunk : row_chunk - chunk) * kChunk;
  }
};

__device__ void LoadTile(const CUtensorMap* map, uint64_t* full, uint8_t* to, int head, int chunk,
                         int batch) {
  for (int panel = 0; panel < 2; ++panel) {
    hopper::LoadBox(map, full, to + panel * kPanelBytes, panel * kPanelColumns, head,
                    chunk * kChunk, batch);
  }
}

template <int kHalves>
__device__ void LoadAll(const Parameters& parameters, SweepMemory<kHalves>& memory,
                        const Passage& passage, int block, int head, int batch) {
  hopper::BarrierArriveExpect(&memory.x_full, sizeof(memory.x));
  for (int group = 0; group < 2; ++group) {
    for (int half = 0; half < kHalves; ++half) {
      LoadTile(&parameters.x[half], &memory.x_full, memory.x[group][half], head, 2 * block + group,
               batch);
    }
  }
  Ring<SweepMemory<kHalves>::kStages> ring;
  for (int tile = 0; tile < passage.tiles; ++tile) {
    hopper::BarrierWait(&memory.empty[ring.stage], ring.phase ^ 1);
    uint64_t* const full = &memory.full[ring.stage];
    auto& stage = memory.stages[ring.stage];
    hopper::BarrierArriveExpect(full, sizeof(stage));
    const int chunk = passage.ChunkAt(tile);
    for (int half = 0; half < kHalves; ++half) {
      LoadTile(&parameters.y[half], full, stage.y[half], head, chunk, batch);
    }
    LoadTile(&parameters.z, full, stage.z, head, chunk, batch);
    ring.Advance();
  }
}

// A warpgroup's rows as the left operand of the scores: in registers where they fit.
template <int kHalves>
class Rows {
 public:
  __device__ Rows(const uint8_t (&x)[kHalves][kTileBytes], const FragmentLane& at)
      : x_(hopper::SharedAddress(x)) {
    if constexpr (kHalves == 1) {
      const int row = 16 * at.warp + (at.lane & 15);
#pragma unroll
      for (int k = 0; k < 8; ++k) {
        const int piece = 2 * (k % 4) + (at.lane >> 4);
        hopper::LoadMatrices(x_ + k / 4 * kPanelBytes + PieceOffset(row, piece), fragments_[k]);
      }
    }
  }

  // scores = x y^T
  __device__ void IssueScores(const uint8_t (&y)[kHalves][kTileBytes], float (&scores)[32]) const {
    hopper::HoldRegisters(scores);
    hopper::ProductsBegin();
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      const uint64_t b = hopper::OperandDescriptor(hopper::SharedAddress(y[half]), 0);
      [[maybe_unused]] const uint64_t a =
          hopper::OperandDescriptor(x_ + static_cast<uint32_t>(half) * kTileBytes, 0);
#pragma unroll
      for (int k = 0; k < 8; ++k) {
        const int step = (k / 4 * kPanelBytes + k % 4 * 32) >> 4;
        const bool accumulates = half + k > 0;
        if constexpr (kHalves == 1) {
          hopper::Product<64, hopper::Major::kAlong>::FromRegisters(scores, fragments_[k], b + step,
                                                                    accumulates);
        } else {
          hopper::Product<64, hopper::Major::kAlong>::FromShared(scores, a + step, b + step,
                                                                 accumulates);
        }
      }
    }
    hopper::ProductsCommit();
  }

 private:
  uint32_t x_;
  uint32_t fragments_[kHalves == 1 ? 8 : 1][4];
};

// output += operand z, for 64 tokens. The products before may still be under way.
__device__ void IssueOutput(const uint8_t (&z)[kTileBytes], const uint32_t (&operand)[4][4],
                            float (&output)[64], bool accumulates) {
  hopper::ProductsBegin();
  const uint64_t b = hopper::OperandDescriptor(hopper::SharedAddress(z), kPanelBytes);
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    hopper::Product<128, hopper::Major::kAcross>::FromRegisters(
        output, operand[k], b + k * (2048 >> 4), accumulates || k > 0);
  }
  hopper::ProductsCommit();
}

// Scores of a tile that lies wholly to one side, times all of their decay but the rows'.
__device__ void WeighScores(const float (&column_decay)[16], float tile_decay,
                            const float (&scores)[32], uint32_t (&operand)[4][4]) {
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    const float low = column_decay[2 * n] * tile_decay;
    const float high = column_decay[2 * n + 1] * tile_decay;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      operand[n / 2][2 * (n & 1) + half] =
          hopper::PackBfloat16(scores[4 * n + 2 * half] * low, scores[4 * n + 2 * half + 1] * high);
    }
  }
}

// What lay in the output's place is added to it.
__device__ void AddOld(const Parameters& parameters, const FragmentLane& at, int row_chunk,
                       int head, int batch, float (&output)[64]) {
  const HeadsView<Bf16>& old = parameters.old_output;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t token = static_cast<int64_t>(row_chunk) * kChunk + at.row + 8 * half;
    if (token >= parameters.tokens) {
      continue;
    }
    const Bf16* const row =
        old.data + batch * old.batch_stride + token * old.token_stride + head * old.head_stride;
#pragma unroll
    for (int n = 0; n < 16; ++n) {
      const int column = 8 * n + at.column;
      if (column < parameters.output_size) {
        const uint32_t pair = *reinterpret_cast<const uint32_t*>(row + column);
        output[4 * n + 2 * half] += hopper::LowOf(pair);
        output[4 * n + 2 * half + 1] += hopper::HighOf(pair);
      }
    }
  }
}

// What the rows of one warpgroup gather from the tiles that they take part in. Returns where the
// last of them lies, which is still to be given back.
template <int kHalves>
__device__ Ring<SweepMemory<kHalves>::kStages> Gather(const Parameters& parameters,
                                                      SweepMemory<kHalves>& memory,
                                                      const Passage& passage,
                                                      const FragmentLane& at, int group,
                                                      double slope, float (&output)[64]) {
  constexpr int kStages = SweepMemory<kHalves>::kStages;
  const DecayTable decay(memory.decay);
  float column_decay[16];
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    const int column = 8 * (i / 2) + at.column + (i & 1);
    column_decay[i] = decay[passage.reversed ? column : kChunk - 1 - column];
  }
  const float first_row = decay[passage.reversed ? kChunk - 1 - at.row : at.row];
  const float second_row = decay[passage.reversed ? kChunk - 9 - at.row : at.row + 8];

  hopper::BarrierWait(&memory.x_full, 0);
  const Rows<kHalves> rows(memory.x[group], at);
  float scores[32];
  Ring<kStages> ring;
  Ring<kStages> before;
  hopper::BarrierWait(&memory.full[0], 0);
  rows.IssueScores(memory.stages[0].y, scores);
  hopper::ProductsWait<0>();
  hopper::HoldRegisters(scores);

  const auto take = [&](int tile, uint32_t(&operand)[4][4]) {
    const bool last = tile + 1 == passage.taken;
    if (last && passage.meets) {
      if (tile > 0) {
        hopper::ProductsWait<0>();
        hopper::HoldRegisters(output);
        ScaleRows(first_row, second_row, output);
      }
      if (passage.reversed) {
        DecayScores<true>(decay, at, 0, scores, operand);
      } else {
        DecayScores<false>(decay, at, 0, scores, operand);
      }
    } else {
      const int64_t distance = parameters.distance + passage.Between(tile) - (kChunk - 1);
      WeighScores(column_decay, expf(static_cast<float>(-slope * static_cast<double>(distance))),
                  scores, operand);
    }
    Ring<kStages> next = ring;
    if (!last) {
      next.Advance();
      hopper::BarrierWait(&memory.full[next.stage], next.phase);
      rows.IssueScores(memory.stages[next.stage].y, scores);
    }
    IssueOutput(memory.stages[ring.stage].z, operand, output, tile > 0);
    if (last) {
      hopper::ProductsWait<0>();
    } else {
      hopper::ProductsWait<1>();
    }
    hopper::HoldRegisters(scores);
    if (at.lane == 0 && tile > 0) {
      hopper::BarrierArrive(&memory.empty[before.stage]);
    }
    before = ring;
    ring = next;
  };
  // In turn: what a product still reads is not written.
  uint32_t even[4][4];
  uint32_t odd[4][4];
  for (int tile = 0; tile < passage.taken; tile += 2) {
    take(tile, even);
    if (tile + 1 < passage.taken) {
      take(tile + 1, odd);
    }
  }
  hopper::ProductsWait<0>();
  hopper::HoldRegisters(output);
  if (!passage.meets) {
    ScaleRows(first_row, second_row, output);
  }
  return ring;
}

template <int kHalves>
__global__ void __launch_bounds__(kBlockThreads, 1)
    LeftProductKernel(const __grid_constant__ Parameters parameters) {
  extern __shared__ __align__(1024) uint8_t shared[];
  auto& memory = *reinterpret_cast<SweepMemory<kHalves>*>(shared);
  // Those with the most to do begin first.
  const int block = static_cast<int>(parameters.reversed ? blockIdx.x : gridDim.x - 1 - blockIdx.x);
  const int head = static_cast<int>(blockIdx.y);
  const int batch = static_cast<int>(blockIdx.z);
  const int thread = static_cast<int>(threadIdx.x);
  const double slope = parameters.slopes[head];
  DecayTable(memory.decay).Fill(slope, thread, kBlockThreads);
  if (thread == 0) {
    for (int i = 0; i < SweepMemory<kHalves>::kStages; ++i) {
      hopper::BarrierInit(&memory.full[i], 1);
      hopper::BarrierInit(&memory.empty[i], kMathThreads / 32);
    }
    hopper::BarrierInit(&memory.x_full, 1);
    hopper::FenceBarrierInit();
  }
  __syncthreads();
  if (thread >= kMathThreads) {
    hopper::LowerRegisters<kLoadRegisters>();
    if (thread == kMathThreads) {
      LoadAll(parameters, memory, Passage(parameters, block, 0), block, head, batch);
    }
    return;
  }
  hopper::RaiseRegisters<kMathRegisters>();
  const int group = UniformWarpgroup();
  const FragmentLane at(thread);
  const Passage passage(parameters, block, group);
  float output[64];
  Ring<SweepMemory<kHalves>::kStages> ring;
  int tile = 0;
  if (passage.taken > 0) {
    ring = Gather(parameters, memory, passage, at, group, slope, output);
    tile = passage.taken - 1;
  }
  // Tiles of the other warpgroup alone are given back as they come: the copy engine may not take
  // the same warp's word twice for one.
  for (; tile < passage.tiles; ++tile) {
    hopper::BarrierWait(&memory.full[ring.stage], ring.phase);
    if (at.lane == 0) {
      hopper::BarrierArrive(&memory.empty[ring.stage]);
    }
    ring.Advance();
  }
  if (passage.taken == 0) {
    return;
  }
  if (parameters.old_output.data != nullptr) {
    AddOld(parameters, at, passage.row_chunk, head, batch, output);
  }
  uint8_t* const staged = memory.x[group][0];
  hopper::NamedBarrier(1 + group, kWarpgroup);
  StoreRounded(output, at, 0, hopper::SharedAddress(staged), kPanelBytes);
  hopper::FenceAsyncShared();
  hopper::NamedBarrier(1 + group, kWarpgroup);
  if (thread % kWarpgroup == 0) {
    for (int panel = 0; panel < 2; ++panel) {
      hopper::StoreBox(&parameters.output, staged + panel * kPanelBytes, panel * kPanelColumns,
                       head, passage.row_chunk * kChunk, batch);
    }
    hopper::StoreCommit();
    hopper::StoreWaitRead<0>();
  }
}

template <int kHalves>
cudaError_t Launch(const Parameters& parameters, dim3 grid, cudaStream_t stream) {
  constexpr size_t kSharedBytes = sizeof(SweepMemory<kHalves>);
  if (const cudaError_t error = cudaFuncSetAttribute(LeftProductKernel<kHalves>,
                                                     cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                     static_cast<int>(kSharedBytes));
      error != cudaSuccess) {
    return error;
  }
  LeftProductKernel<kHalves><<<grid, kBlockThreads, kSharedBytes, stream>>>(parameters);
  return cudaGetLastError();
}

bool SizeTaken(int64_t size) { return size > 0 && size <= 128 && size % 8 == 0; }

}  // namespace

cudaError_t RunLeftProductSweep(const LeftProductSweep& sweep, cudaStream_t stream) {
  const LinearAttentionShape& shape = sweep.shape;
  if (!SizeTaken(sweep.score_size) || !SizeTaken(sweep.output_size) || shape.batch < 1 ||
      shape.batch > 65535 || shape.heads < 1 || shape.heads > 65535 || shape.tokens < 1 ||
      shape.tokens > (int64_t{1} << 30) || (sweep.distance != 0 && sweep.distance < shape.tokens)) {
    return cudaErrorInvalidValue;
  }
  Parameters parameters{};
  for (int half = 0; half < sweep.halves; ++half) {
    if (const cudaError_t error =
            MakeHeadsMaps(shape, {{sweep.x[half], sweep.score_size, &parameters.x[half]},
                                  {sweep.y[half], sweep.score_size, &parameters.y[half]}});
        error != cudaSuccess) {
      return error;
    }
  }
  if (const cudaError_t error =
          MakeHeadsMaps(shape, {{sweep.z, sweep.output_size, &parameters.z},
                                {sweep.output, sweep.output_size, &parameters.output}});
      error != cudaSuccess) {
    return error;
  }
  if (sweep.adds) {
    parameters.old_output = sweep.output;
  }
  parameters.slopes = shape.slopes;
  parameters.tokens = shape.tokens;
  parameters.distance = sweep.distance;
  parameters.chunks = static_cast<int>((shape.tokens + kChunk - 1) / kChunk);
  parameters.output_size = static_cast<int>(sweep.output_size);
  parameters.reversed = sweep.reversed;
  const dim3 grid(static_cast<unsigned>((parameters.chunks + 1) / 2),
                  static_cast<unsigned>(shape.heads), static_cast<unsigned>(shape.batch));
  return sweep.halves == 1 ? Launch<1>(parameters, grid, stream)
                           : Launch<2>(parameters, grid, stream);
}

}  // namespace lasp::kernels::cuda
