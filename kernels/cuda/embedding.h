// kernels/embedding.h on the GPU. The table's gradient is fp32 and the same bits in every run: the
// tokens are sorted by id, stably, and each row's gradient is a sum in the order of the tokens.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/bfloat16.h"
#include "kernels/embedding.h"

namespace lasp::kernels::cuda {

cudaError_t EmbeddingForward(const EmbeddingForwardArgs<Bf16>& args, cudaStream_t stream);

// What EmbeddingBackward needs, aligned to 16 bytes; its content need not be kept.
int64_t EmbeddingBackwardWorkspaceBytes(int64_t tokens, int64_t hidden_size);

// `vocabulary`: every id is below it.
cudaError_t EmbeddingBackward(const EmbeddingBackwardArgs<Bf16, float>& args, int64_t vocabulary,
                              void* workspace, cudaStream_t stream);

}  // namespace lasp::kernels::cuda
