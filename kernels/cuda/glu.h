// kernels/glu.h on the GPU.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/bfloat16.h"
#include "kernels/glu.h"

namespace lasp::kernels::cuda {

cudaError_t GluForward(const GluForwardArgs<Bf16>& args, cudaStream_t stream);

// With `product` [rows, width], contiguous, the forward's output is formed once more, so that it
// need not be kept; it may be `args.output_gradient`. Null: not formed.
cudaError_t GluBackward(const GluBackwardArgs<Bf16>& args, Bf16* product, cudaStream_t stream);

}  // namespace lasp::kernels::cuda
