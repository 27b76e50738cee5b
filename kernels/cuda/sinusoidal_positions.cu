#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/sinusoidal_positions.h"

namespace lasp::kernels::cuda {
namespace {

constexpr int kThreads = 256;
// Tokens that a thread goes through with its frequency, whose power is dear.
constexpr int kTokens = 16;

// A thread has one frequency: two columns, of all sequences. What is within a turn is taken before
// the sine: it is as exact far out as near, and never slow.
__global__ void __launch_bounds__(kThreads) PositionsKernel(SinusoidalPositionsArgs<Bf16> args) {
  const int64_t column = 2 * (static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x);
  if (column >= args.width) {
    return;
  }
  constexpr double kInverseTwoPi = 0.15915494309189533577;
  const double turns_a_token =
      pow(10000.0, -static_cast<double>(column) / static_cast<double>(args.width)) * kInverseTwoPi;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kTokens;
  for (int64_t token = first; token < first + kTokens && token < args.tokens; ++token) {
    const double turns = turns_a_token * static_cast<double>(args.first_position + token);
    double sine = 0;
    double cosine = 0;
    sincospi(2.0 * (turns - rint(turns)), &sine, &cosine);
    for (int64_t sequence = 0; sequence < args.sequences; ++sequence) {
      Bf16* const x = args.x + (sequence * args.tokens + token) * args.width + column;
      x[0] = __float2bfloat16_rn(__bfloat162float(x[0]) + static_cast<float>(sine));
      if (column + 1 < args.width) {
        x[1] = __float2bfloat16_rn(__bfloat162float(x[1]) + static_cast<float>(cosine));
      }
    }
  }
}

}  // namespace

cudaError_t AddSinusoidalPositions(const SinusoidalPositionsArgs<Bf16>& args, cudaStream_t stream) {
  if (args.sequences == 0 || args.tokens == 0 || args.width == 0) {
    return cudaSuccess;
  }
  const dim3 grid(static_cast<unsigned>((args.tokens + kTokens - 1) / kTokens),
                  static_cast<unsigned>((args.width + 2 * kThreads - 1) / (2 * kThreads)));
  PositionsKernel<<<grid, kThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace lasp::kernels::cuda
