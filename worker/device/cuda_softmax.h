// A GPU behind the device seam: softmax attention, through cuDNN.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "worker/device/cuda_context.h"
#include "worker/device/softmax_ops.h"

namespace lasp::worker {

// FAILED_PRECONDITION where this host, or this build, has no cuDNN to compute softmax attention
// with; says how to mend it. To be called before threads are started that read the environment, if
// softmax attention is to be computed.
absl::Status LoadSoftmaxAttention();

// Nothing is loaded before the first operation, or the first question for scratch; where it cannot
// be, that is the context's failure. `context` must outlive the result.
std::unique_ptr<SoftmaxOps> CreateCudaSoftmax(CudaContext* context);

}  // namespace lasp::worker
