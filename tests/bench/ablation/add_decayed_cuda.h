// AddDecayed on a GPU.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/bfloat16.h"

namespace lasp::bench {

// Rows of [batch * tokens, heads * head_size], strides in elements; slopes: device memory.
struct AddDecayedArgs {
  int64_t batch = 0;
  int64_t tokens = 0;
  int64_t heads = 0;
  int64_t head_size = 0;
  const double* slopes = nullptr;  // [heads]
  bool from_end = false;
  const kernels::cuda::Bf16* x = nullptr;
  int64_t x_stride = 0;
  kernels::cuda::Bf16* y = nullptr;
  int64_t y_stride = 0;
};

// y += lambda^e x; see AddDecayed.
cudaError_t AddDecayedOnGpu(const AddDecayedArgs& args, cudaStream_t stream);

}  // namespace lasp::bench
