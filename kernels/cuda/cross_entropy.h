// kernels/cross_entropy.h on the GPU: logits and gradient in bf16, the loss in fp64.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cross_entropy.h"
#include "kernels/cuda/bfloat16.h"

namespace lasp::kernels::cuda {

// What CrossEntropy needs, aligned to 16 bytes; its content need not be kept.
int64_t CrossEntropyWorkspaceBytes(int64_t rows);

// Reads each logit once and writes each gradient once where rows start at multiples of 16 bytes and
// hold at most 262,144 logits. The order of the loss's sum is fixed.
cudaError_t CrossEntropy(const CrossEntropyArgs<Bf16>& args, void* workspace, cudaStream_t stream);

}  // namespace lasp::kernels::cuda
