#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/global_norm.h"
#include "kernels/cuda/reduce.cuh"

namespace lasp::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocks = 1056;  // eight a multiprocessor of the GPUs we know
constexpr int kUnroll = 4;

__device__ __forceinline__ double Square(float value) {
  return static_cast<double>(value) * static_cast<double>(value);
}

__global__ void __launch_bounds__(kThreads)
    block_sums_kernel(int64_t count, const float* values, double* sums) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  constexpr int64_t kStep = static_cast<int64_t>(kBlocks) * kThreads;
  double own = 0;
  const int64_t quads = reinterpret_cast<uintptr_t>(values) % 16 == 0 ? count / 4 : 0;
  const auto* const quad_values = reinterpret_cast<const float4*>(values);
  for (int64_t first = thread; first < quads; first += kStep * kUnroll) {
    float4 x[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int64_t i = first + u * kStep;
      x[u] = i < quads ? quad_values[i] : float4{0, 0, 0, 0};
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      own += (Square(x[u].x) + Square(x[u].y)) + (Square(x[u].z) + Square(x[u].w));
    }
  }
  for (int64_t i = quads * 4 + thread; i < count; i += kStep) {
    own += Square(values[i]);
  }
  own = BlockSum<kThreads>(own);
  if (threadIdx.x == 0) {
    sums[blockIdx.x] = own;
  }
}

__global__ void __launch_bounds__(kThreads) add_block_sums_kernel(const double* sums, double* sum) {
  double own = 0;
  for (int block = static_cast<int>(threadIdx.x); block < kBlocks; block += kThreads) {
    own += sums[block];
  }
  own = BlockSum<kThreads>(own);
  if (threadIdx.x == 0) {
    *sum += own;
  }
}

}  // namespace

int64_t SumOfSquaresWorkspaceBytes() { return kBlocks * static_cast<int64_t>(sizeof(double)); }

cudaError_t SumOfSquares(const SumOfSquaresArgs<float>& args, void* workspace,
                         cudaStream_t stream) {
  if (args.count == 0) {
    return cudaSuccess;
  }
  auto* const sums = static_cast<double*>(workspace);
  block_sums_kernel<<<kBlocks, kThreads, 0, stream>>>(args.count, args.values, sums);
  add_block_sums_kernel<<<1, kThreads, 0, stream>>>(sums, args.sum);
  return cudaGetLastError();
}

}  // namespace lasp::kernels::cuda
