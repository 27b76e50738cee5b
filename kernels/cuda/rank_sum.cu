#include <cstdint>

#include "kernels/cuda/rank_sum.h"

namespace lasp::kernels::cuda {
namespace {

constexpr int kThreads = 256;

__device__ float Add(float a, float b) { return a + b; }

__device__ float4 Add(float4 a, float4 b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

// One Group a thread.
template <typename Group>
__global__ void __launch_bounds__(kThreads) rank_sum_kernel(RankSum arguments, int64_t groups) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= groups) {
    return;
  }
  const auto at = [i](const float* part) { return reinterpret_cast<const Group*>(part)[i]; };
  Group sum = at(arguments.parts[0]);
  for (int rank = 1; rank < arguments.ranks; ++rank) {
    sum = Add(sum, at(arguments.parts[rank]));
  }
  reinterpret_cast<Group*>(arguments.sum)[i] = sum;
}

template <typename Group>
void Launch(const RankSum& arguments, int64_t groups, cudaStream_t stream) {
  rank_sum_kernel<Group>
      <<<static_cast<unsigned>((groups + kThreads - 1) / kThreads), kThreads, 0, stream>>>(
          arguments, groups);
}

}  // namespace

cudaError_t SumOverRanks(const RankSum& arguments, cudaStream_t stream) {
  if (arguments.ranks < 1 || arguments.ranks > RankSum::kMostRanks) {
    return cudaErrorInvalidValue;
  }
  constexpr int64_t kWide = sizeof(float4) / sizeof(float);
  bool aligned = arguments.count % kWide == 0 &&
                 reinterpret_cast<uintptr_t>(arguments.sum) % sizeof(float4) == 0;
  for (int rank = 0; rank < arguments.ranks; ++rank) {
    aligned = aligned && reinterpret_cast<uintptr_t>(arguments.parts[rank]) % sizeof(float4) == 0;
  }
  if (arguments.count == 0) {
    return cudaSuccess;
  }
  if (aligned) {
    Launch<float4>(arguments, arguments.count / kWide, stream);
  } else {
    Launch<float>(arguments, arguments.count, stream);
  }
  return cudaGetLastError();
}

}  // namespace lasp::kernels::cuda
