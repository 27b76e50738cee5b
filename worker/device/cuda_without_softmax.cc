// In the place of cuda_softmax.cc where there was no cuDNN to build with.
#include <memory>

#include "worker/device/cuda_softmax.h"

namespace lasp::worker {

absl::Status LoadSoftmaxAttention() {
  return absl::FailedPreconditionError(
      "this lasp-rank-cuda was built without cuDNN, which computes softmax attention on GPUs: "
      "build it where libcudnn9-dev-cuda-13 is installed, or choose layer_pattern L, or device "
      "CPU");
}

std::unique_ptr<SoftmaxOps> CreateCudaSoftmax(CudaContext* /*context*/) { return nullptr; }

}  // namespace lasp::worker
