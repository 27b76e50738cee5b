// lasp-model-cuda computes on one Hopper GPU, the first that the process sees.
#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"
#include "proto/spec/gpu_support.h"
#include "worker/device/cuda_backend.h"
#include "worker/inference/model_device.h"

namespace lasp::worker {

absl::StatusOr<std::unique_ptr<Backend>> OpenModelDevice(const lasp::v1::ModelSpec& model) {
  if (const std::string reason = ReasonAgainstGpus(model); !reason.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("the model's number of heads ", reason));
  }
  LASP_ASSIGN_OR_RETURN(std::unique_ptr<CudaBackend> backend, CreateCudaBackend({}));
  return backend;
}

const char* ModelDeviceName() { return "GPU"; }

const char* ModelProgramName() { return "lasp-model-cuda"; }

}  // namespace lasp::worker
