// Radix sort, eight bits a pass, the lowest first. A pass counts the digits of each tile of tokens,
// sums the counts (by digit, then by tile) and moves each token to its place; the sort is stable
// because one warp walks a tile in order.
#include <cuda_runtime.h>

#include <cstdint>
#include <utility>

#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/token_sort.h"

namespace lasp::kernels::cuda {
namespace {

constexpr int kDigits = 256;
constexpr int kTile = 1024;
constexpr int kScanThreads = 1024;

int64_t TileCount(int64_t tokens) { return (tokens + kTile - 1) / kTile; }

struct Pass {
  int tokens;
  int tiles;
  int shift;
  const int32_t* ids;
  const int32_t* from;  // null: the positions in order
  int32_t* to;
  int32_t* counts;  // [kDigits, tiles]
};

__device__ __forceinline__ int PositionAt(const Pass& pass, int i) {
  return pass.from == nullptr ? i : pass.from[i];
}

__device__ __forceinline__ int DigitOf(const Pass& pass, int position) {
  return (pass.ids[position] >> pass.shift) % kDigits;
}

__global__ void __launch_bounds__(kDigits) count_digits_kernel(const Pass pass) {
  __shared__ int counts[kDigits];
  counts[threadIdx.x] = 0;
  __syncthreads();
  const int begin = static_cast<int>(blockIdx.x) * kTile;
  const int end = min(begin + kTile, pass.tokens);
  for (int i = begin + static_cast<int>(threadIdx.x); i < end; i += kDigits) {
    atomicAdd(&counts[DigitOf(pass, PositionAt(pass, i))], 1);
  }
  __syncthreads();
  pass.counts[static_cast<int>(threadIdx.x) * pass.tiles + static_cast<int>(blockIdx.x)] =
      counts[threadIdx.x];
}

// counts becomes the sum of all before each; one block.
__global__ void __launch_bounds__(kScanThreads) scan_kernel(int count, int32_t* counts) {
  __shared__ int warp_sums[32];
  const int share = (count + kScanThreads - 1) / kScanThreads;
  const int begin = min(static_cast<int>(threadIdx.x) * share, count);
  const int end = min(begin + share, count);
  int own = 0;
  for (int i = begin; i < end; ++i) {
    own += counts[i];
  }
  const int lane = static_cast<int>(threadIdx.x % 32);
  int through = own;  // the sum over the lanes up to this one
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const int below = __shfl_up_sync(kWholeWarp, through, distance);
    through += lane >= distance ? below : 0;
  }
  if (lane == 31) {
    warp_sums[threadIdx.x / 32] = through;
  }
  __syncthreads();
  int before = through - own;
  for (int warp = 0; warp < static_cast<int>(threadIdx.x / 32); ++warp) {
    before += warp_sums[warp];
  }
  for (int i = begin; i < end; ++i) {
    const int value = counts[i];
    counts[i] = before;
    before += value;
  }
}

__global__ void __launch_bounds__(kDigits) move_kernel(const Pass pass) {
  __shared__ int next[kDigits];
  __shared__ int positions[kTile];
  __shared__ int digits[kTile];
  const int tile = static_cast<int>(blockIdx.x);
  const int begin = tile * kTile;
  const int size = min(kTile, pass.tokens - begin);
  next[threadIdx.x] = pass.counts[static_cast<int>(threadIdx.x) * pass.tiles + tile];
#pragma unroll
  for (int i = static_cast<int>(threadIdx.x); i < kTile; i += kDigits) {
    if (i < size) {
      positions[i] = PositionAt(pass, begin + i);
      digits[i] = DigitOf(pass, positions[i]);
    }
  }
  __syncthreads();
  if (threadIdx.x >= 32) {
    return;
  }
  const int lane = static_cast<int>(threadIdx.x);
  for (int first = 0; first < size; first += 32) {
    const int i = first + lane;
    const bool valid = i < size;
    const int position = valid ? positions[i] : 0;
    const int digit = valid ? digits[i] : kDigits;
    const unsigned same = __match_any_sync(kWholeWarp, digit);
    const int before = __popc(same & ((1U << lane) - 1));
    const int place = valid ? next[digit] + before : 0;
    __syncwarp();
    if (valid) {
      pass.to[place] = position;
      if (before == 0) {
        next[digit] += __popc(same);
      }
    }
    __syncwarp();
  }
}

}  // namespace

int64_t TokenSortWorkspaceBytes(int64_t tokens) {
  const int64_t words = 2 * tokens + kDigits * TileCount(tokens);
  return (words * static_cast<int64_t>(sizeof(int32_t)) + 15) / 16 * 16;
}

cudaError_t TokenSort(int64_t tokens, int64_t vocabulary, const int32_t* ids, void* workspace,
                      const int32_t** order, cudaStream_t stream) {
  auto* to = static_cast<int32_t*>(workspace);
  int32_t* other = to + tokens;
  const auto tiles = static_cast<int>(TileCount(tokens));
  Pass pass = {.tokens = static_cast<int>(tokens),
               .tiles = tiles,
               .shift = 0,
               .ids = ids,
               .from = nullptr,
               .to = to,
               .counts = to + 2 * tokens};
  *order = to;
  if (tokens == 0) {
    return cudaSuccess;
  }
  for (bool first = true; first || (vocabulary - 1) >> pass.shift > 0; first = false) {
    count_digits_kernel<<<tiles, kDigits, 0, stream>>>(pass);
    scan_kernel<<<1, kScanThreads, 0, stream>>>(kDigits * tiles, pass.counts);
    move_kernel<<<tiles, kDigits, 0, stream>>>(pass);
    *order = pass.to;
    pass.from = pass.to;
    pass.shift += 8;
    std::swap(to, other);
    pass.to = to;
  }
  return cudaGetLastError();
}

}  // namespace lasp::kernels::cuda
