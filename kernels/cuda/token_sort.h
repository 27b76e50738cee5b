// A stable sort of token positions by token id.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace lasp::kernels::cuda {

int64_t TokenSortWorkspaceBytes(int64_t tokens);

// *order, in the workspace (aligned to 16 bytes): the positions 0 … tokens - 1 in the order of
// (ids[position], position). Ids lie in [0, vocabulary).
cudaError_t TokenSort(int64_t tokens, int64_t vocabulary, const int32_t* ids, void* workspace,
                      const int32_t** order, cudaStream_t stream);

}  // namespace lasp::kernels::cuda
