// How the kernels of linear attention are started: a thread block a segment, by heads, by batch.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <initializer_list>

#include "kernels/cuda/linear_attention_tiles.cuh"
#include "kernels/cuda/tensor_map.h"

namespace lasp::kernels::cuda {

// `maps` are of `parameters`; `blocks` is the grid's first dimension.
template <typename Parameters>
cudaError_t LaunchSegments(void (*kernel)(Parameters), size_t shared_bytes, int blocks,
                           const LinearAttentionShape& shape, std::initializer_list<HeadsMap> maps,
                           const Parameters& parameters, cudaStream_t stream) {
  cudaError_t error = MakeHeadsMaps(shape, maps);
  if (error == cudaSuccess) {
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(shared_bytes));
  }
  if (error != cudaSuccess) {
    return error;
  }
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(shape.heads),
                  static_cast<unsigned>(shape.batch));
  kernel<<<grid, kBlockThreads, shared_bytes, stream>>>(parameters);
  return cudaGetLastError();
}

}  // namespace lasp::kernels::cuda
