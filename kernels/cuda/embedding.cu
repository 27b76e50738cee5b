#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/embedding.h"
#include "kernels/cuda/map_rows.cuh"
#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/token_sort.h"

namespace lasp::kernels::cuda {
namespace {

template <int N>
struct Forward {
  using In = Bf16Pack<N>;
  EmbeddingForwardArgs<Bf16> args;

  __device__ In Load(int64_t row, int column) const {
    return In::Load(args.embedding + args.ids[row] * args.hidden_size + column);
  }

  __device__ void Store(int64_t row, int column, const In& in) const {
    float x[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      x[i] = static_cast<float>(args.scale) * in[i];
    }
    Bf16Pack<N>::Rounded(x).Store(args.output + row * args.hidden_size + column);
  }
};

// The sorted tokens are cut into pieces. Runs of one id that end inside a piece are added to the
// table there; the sums of the two that may cross its borders go to the workspace, and a second
// kernel adds those up, one run a block.
constexpr int kPiece = 32;
constexpr int kThreads = 256;
constexpr int kInFlight = 8;

struct Backward {
  int64_t tokens;
  int64_t hidden_size;
  float scale;
  const int32_t* ids;
  const int32_t* order;
  const Bf16* output_gradient;
  float* table_gradient;
  float* heads;  // [pieces, hidden_size]: of the run that began in an earlier piece
  float* tails;  // [pieces, hidden_size]: of the run that begins here and ends in a later one

  __device__ int IdAt(int64_t sorted) const {
    return sorted < 0 || sorted >= tokens ? -1 : ids[order[sorted]];
  }
};

template <int N>
__device__ __forceinline__ void LoadFloats(const float* from, float (&to)[N]) {
  if constexpr (N % 4 == 0) {
#pragma unroll
    for (int e = 0; e < N; e += 4) {
      *reinterpret_cast<float4*>(to + e) = *reinterpret_cast<const float4*>(from + e);
    }
  } else {
#pragma unroll
    for (int e = 0; e < N; ++e) {
      to[e] = from[e];
    }
  }
}

template <int N>
__device__ __forceinline__ void StoreFloats(const float (&from)[N], float* to) {
  if constexpr (N % 4 == 0) {
#pragma unroll
    for (int e = 0; e < N; e += 4) {
      *reinterpret_cast<float4*>(to + e) = *reinterpret_cast<const float4*>(from + e);
    }
  } else {
#pragma unroll
    for (int e = 0; e < N; ++e) {
      to[e] = from[e];
    }
  }
}

template <int N>
__device__ __forceinline__ void AddToTable(const Backward& args, int id, int column,
                                           const float (&sum)[N]) {
  float* const to = args.table_gradient + id * args.hidden_size + column;
  alignas(16) float row[N];
  LoadFloats(to, row);
#pragma unroll
  for (int e = 0; e < N; ++e) {
    row[e] += args.scale * sum[e];
  }
  StoreFloats(row, to);
}

template <int N>
__global__ void __launch_bounds__(kThreads) sum_pieces_kernel(const Backward args) {
  __shared__ int positions[kPiece];
  __shared__ int ids[kPiece + 2];  // with the neighbours on both sides
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kPiece;
  const int size = static_cast<int>(min(static_cast<int64_t>(kPiece), args.tokens - begin));
  for (int i = static_cast<int>(threadIdx.x); i < kPiece + 2; i += kThreads) {
    ids[i] = i < size + 2 ? args.IdAt(begin + i - 1) : -1;
    if (i < size) {
      positions[i] = args.order[begin + i];
    }
  }
  __syncthreads();
  const int column = static_cast<int>(blockIdx.y * kThreads + threadIdx.x) * N;
  if (column >= args.hidden_size) {
    return;
  }
  alignas(16) float sum[N] = {};
  bool from_before = ids[0] == ids[1];
  for (int first = 0; first < size; first += kInFlight) {
    Bf16Pack<N> d_x[kInFlight];
#pragma unroll
    for (int j = 0; j < kInFlight; ++j) {
      if (first + j < size) {
        d_x[j] = Bf16Pack<N>::Load(args.output_gradient + positions[first + j] * args.hidden_size +
                                   column);
      }
    }
#pragma unroll
    for (int j = 0; j < kInFlight; ++j) {
      const int i = first + j;
      if (i < size) {
#pragma unroll
        for (int e = 0; e < N; ++e) {
          sum[e] += d_x[j][e];
        }
        const bool goes_on = ids[i + 2] == ids[i + 1];
        if (!goes_on || i + 1 == size) {
          if (from_before || goes_on) {
            float* const to = (from_before ? args.heads : args.tails) +
                              static_cast<int64_t>(blockIdx.x) * args.hidden_size + column;
            StoreFloats(sum, to);
          } else {
            AddToTable(args, ids[i + 1], column, sum);
          }
          from_before = false;
#pragma unroll
          for (int e = 0; e < N; ++e) {
            sum[e] = 0;
          }
        }
      }
    }
  }
}

// Block p: the run that begins in piece p and ends in a later one, if there is one.
__global__ void __launch_bounds__(kThreads) sum_crossing_runs_kernel(const Backward args) {
  const int64_t piece = blockIdx.x;
  const int64_t begin = piece * kPiece;
  const int id = args.IdAt(begin + kPiece - 1);
  const bool crosses = id >= 0 && args.IdAt(begin + kPiece) == id;
  if (!crosses || (args.IdAt(begin) == id && args.IdAt(begin - 1) == id)) {
    return;
  }
  // The run's last place, between `inside` and `outside`.
  int64_t inside = begin + kPiece;
  int64_t outside = args.tokens;
  while (outside - inside > 1) {
    const int64_t middle = (inside + outside) / 2;
    if (args.IdAt(middle) == id) {
      inside = middle;
    } else {
      outside = middle;
    }
  }
  const int64_t last = inside / kPiece;
  const int64_t c = static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x;
  if (c < args.hidden_size) {
    // A run may be as long as the batch: fp32 would lose what each piece adds.
    double total = static_cast<double>(args.tails[piece * args.hidden_size + c]);
#pragma unroll 8
    for (int64_t p = piece + 1; p <= last; ++p) {
      total += static_cast<double>(args.heads[p * args.hidden_size + c]);
    }
    const float sum[1] = {static_cast<float>(total)};
    AddToTable(args, id, static_cast<int>(c), sum);
  }
}

int64_t PieceCount(int64_t tokens) { return (tokens + kPiece - 1) / kPiece; }

}  // namespace

cudaError_t EmbeddingForward(const EmbeddingForwardArgs<Bf16>& args, cudaStream_t stream) {
  return MapRows(
      args.tokens, args.hidden_size,
      Aligned16(args.embedding, args.hidden_size) && Aligned16(args.output, args.hidden_size),
      Forward<kBf16Pack>{args}, Forward<1>{args}, stream);
}

int64_t EmbeddingBackwardWorkspaceBytes(int64_t tokens, int64_t hidden_size) {
  return TokenSortWorkspaceBytes(tokens) +
         2 * PieceCount(tokens) * hidden_size * static_cast<int64_t>(sizeof(float));
}

cudaError_t EmbeddingBackward(const EmbeddingBackwardArgs<Bf16, float>& args, int64_t vocabulary,
                              void* workspace, cudaStream_t stream) {
  if (args.tokens == 0 || args.hidden_size == 0) {
    return cudaSuccess;
  }
  const int32_t* order = nullptr;
  const cudaError_t error = TokenSort(args.tokens, vocabulary, args.ids, workspace, &order, stream);
  if (error != cudaSuccess) {
    return error;
  }
  auto* const heads = reinterpret_cast<float*>(static_cast<char*>(workspace) +
                                               TokenSortWorkspaceBytes(args.tokens));
  const int64_t pieces = PieceCount(args.tokens);
  const Backward backward = {.tokens = args.tokens,
                             .hidden_size = args.hidden_size,
                             .scale = static_cast<float>(args.scale),
                             .ids = args.ids,
                             .order = order,
                             .output_gradient = args.output_gradient,
                             .table_gradient = args.embedding_gradient,
                             .heads = heads,
                             .tails = heads + pieces * args.hidden_size};
  const bool wide = args.hidden_size % kBf16Pack == 0 &&
                    Aligned16(args.output_gradient, args.hidden_size) &&
                    Aligned16(args.embedding_gradient, args.hidden_size);
  const int columns = kThreads * (wide ? kBf16Pack : 1);
  const dim3 grid(static_cast<unsigned>(pieces),
                  static_cast<unsigned>((args.hidden_size + columns - 1) / columns));
  if (wide) {
    sum_pieces_kernel<kBf16Pack><<<grid, kThreads, 0, stream>>>(backward);
  } else {
    sum_pieces_kernel<1><<<grid, kThreads, 0, stream>>>(backward);
  }
  const dim3 all_columns(grid.x,
                         static_cast<unsigned>((args.hidden_size + kThreads - 1) / kThreads));
  sum_crossing_runs_kernel<<<all_columns, kThreads, 0, stream>>>(backward);
  return cudaGetLastError();
}

}  // namespace lasp::kernels::cuda
