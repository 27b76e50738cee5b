// Element-wise operations on rows of bf16 that lie a stride apart.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/pack.cuh"

namespace lasp::kernels::cuda {

inline constexpr int kMapThreads = 256;
inline constexpr int kMapRows = 4;  // in flight in each thread

// An Operation<N> has a type In, In Load(row, column) and void Store(row, column, In), each for the
// N values from a column on. A thread loads all it handles before it stores anything.
template <typename Operation>
__global__ void __launch_bounds__(kMapThreads)
    map_rows_kernel(int64_t rows, int packs, int pack_size, Operation operation) {
  const int pack = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
  if (pack >= packs) {
    return;
  }
  const int column = pack * pack_size;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.y * kMapRows + threadIdx.y;
  typename Operation::In in[kMapRows];
#pragma unroll
  for (int r = 0; r < kMapRows; ++r) {
    const int64_t row = first + r * static_cast<int>(blockDim.y);
    if (row < rows) {
      in[r] = operation.Load(row, column);
    }
  }
#pragma unroll
  for (int r = 0; r < kMapRows; ++r) {
    const int64_t row = first + r * static_cast<int>(blockDim.y);
    if (row < rows) {
      operation.Store(row, column, in[r]);
    }
  }
}

// Runs `wide` (an Operation<8>) where `aligned` and the width allow it, else `narrow` (an
// Operation<1>).
template <typename Wide, typename Narrow>
cudaError_t MapRows(int64_t rows, int64_t width, bool aligned, const Wide& wide,
                    const Narrow& narrow, cudaStream_t stream) {
  if (rows == 0 || width == 0) {
    return cudaSuccess;
  }
  const int pack_size = aligned && width % kBf16Pack == 0 ? kBf16Pack : 1;
  const int packs = static_cast<int>(width / pack_size);
  unsigned across = 1;
  while (across < kMapThreads && static_cast<int>(across) < packs) {
    across *= 2;
  }
  const dim3 block(across, kMapThreads / across);
  const int64_t rows_a_block = static_cast<int64_t>(block.y) * kMapRows;
  const dim3 grid(static_cast<unsigned>((rows + rows_a_block - 1) / rows_a_block),
                  (static_cast<unsigned>(packs) + across - 1) / across);
  if (pack_size == kBf16Pack) {
    map_rows_kernel<<<grid, block, 0, stream>>>(rows, packs, pack_size, wide);
  } else {
    map_rows_kernel<<<grid, block, 0, stream>>>(rows, packs, pack_size, narrow);
  }
  return cudaGetLastError();
}

}  // namespace lasp::kernels::cuda
