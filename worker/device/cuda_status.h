// CUDA's errors as ours.
#pragma once

#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace lasp::worker {

// `what` was being done: "copying to the GPU". RESOURCE_EXHAUSTED where memory is short,
// FAILED_PRECONDITION where there is no usable GPU or driver; else INTERNAL: after most errors the
// device's context is lost, and with it the process.
absl::Status CudaStatus(cudaError_t error, absl::string_view what);

}  // namespace lasp::worker

#define LASP_RETURN_IF_CUDA_ERROR(expression, what)                                         \
  do {                                                                                      \
    if (const cudaError_t lasp_cuda_error = (expression); lasp_cuda_error != cudaSuccess) { \
      return ::lasp::worker::CudaStatus(lasp_cuda_error, what);                             \
    }                                                                                       \
  } while (false)
