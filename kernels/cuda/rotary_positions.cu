#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/rotary_positions.h"

namespace lasp::kernels::cuda {
namespace {

constexpr int kThreads = 256;
// Of a block, whose angles are computed once for all heads and sequences.
constexpr int kTokens = 16;
constexpr int kMostPairs = 128;

// N pairs side by side.
template <int N>
__device__ void Turn(int half, const float2* angles, Bf16* x) {
  const auto a = Bf16Pack<N>::Load(x);
  const auto b = Bf16Pack<N>::Load(x + half);
  float turned_a[N];
  float turned_b[N];
#pragma unroll
  for (int c = 0; c < N; ++c) {
    turned_a[c] = a[c] * angles[c].x - b[c] * angles[c].y;
    turned_b[c] = b[c] * angles[c].x + a[c] * angles[c].y;
  }
  Bf16Pack<N>::Rounded(turned_a).Store(x);
  Bf16Pack<N>::Rounded(turned_b).Store(x + half);
}

template <int N>
__global__ void __launch_bounds__(kThreads) TurnKernel(RotaryPositionsArgs<Bf16> args) {
  __shared__ float2 angles[kTokens * kMostPairs];
  const int half = static_cast<int>(args.head_size / 2);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kTokens;
  const int tokens = static_cast<int>(min(static_cast<int64_t>(kTokens), args.tokens - first));
  constexpr double kInverseTwoPi = 0.15915494309189533577;
  for (int i = threadIdx.x; i < tokens * half; i += kThreads) {
    const double turns_a_token =
        pow(args.base, -2.0 * (i % half) / static_cast<double>(args.head_size)) * kInverseTwoPi;
    const double turns =
        turns_a_token * static_cast<double>(args.first_position + first + i / half);
    double sine = 0;
    double cosine = 0;
    sincospi(2.0 * (turns - rint(turns)), &sine, &cosine);
    angles[i] = {static_cast<float>(cosine), static_cast<float>(args.inverse ? -sine : sine)};
  }
  __syncthreads();
  const int packs = half / N;
  const int of_token = static_cast<int>(args.heads) * packs;
  for (int64_t sequence = 0; sequence < args.sequences; ++sequence) {
    Bf16* const rows = args.x + (sequence * args.tokens + first) * args.token_stride;
    for (int i = threadIdx.x; i < tokens * of_token; i += kThreads) {
      const int token = i / of_token;
      const int head = i % of_token / packs;
      const int column = i % packs * N;
      Turn<N>(half, angles + token * half + column,
              rows + token * args.token_stride + head * args.head_size + column);
    }
  }
}

}  // namespace

cudaError_t TurnByPositions(const RotaryPositionsArgs<Bf16>& args, cudaStream_t stream) {
  if (args.sequences == 0 || args.tokens == 0 || args.heads == 0) {
    return cudaSuccess;
  }
  const int64_t half = args.head_size / 2;
  if (args.head_size % 2 != 0 || half < 1 || half > kMostPairs) {
    return cudaErrorInvalidValue;
  }
  const auto blocks = static_cast<unsigned>((args.tokens + kTokens - 1) / kTokens);
  if (half % kBf16Pack == 0 && Aligned16(args.x, args.token_stride)) {
    TurnKernel<kBf16Pack><<<blocks, kThreads, 0, stream>>>(args);
  } else {
    TurnKernel<1><<<blocks, kThreads, 0, stream>>>(args);
  }
  return cudaGetLastError();
}

}  // namespace lasp::kernels::cuda
