#include "worker/device/cuda_context.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"
#include "worker/device/cuda_status.h"

namespace lasp::worker {

absl::StatusOr<std::unique_ptr<CudaContext>> CudaContext::Create(int device) {
  int count = 0;
  LASP_RETURN_IF_CUDA_ERROR(cudaGetDeviceCount(&count), "looking for GPUs");
  if (device < 0 || device >= count) {
    return absl::FailedPreconditionError(
        absl::StrCat("there is no GPU ", device, ": this process sees ", count));
  }
  cudaDeviceProp properties;
  LASP_RETURN_IF_CUDA_ERROR(cudaGetDeviceProperties(&properties, device), "asking the GPU");
  if (properties.major != 9) {
    return absl::FailedPreconditionError(
        absl::StrCat("GPU ", device, " is a ", properties.name, " of compute capability ",
                     properties.major, ".", properties.minor, "; lasp's kernels are for 9.0"));
  }
  LASP_RETURN_IF_CUDA_ERROR(cudaSetDevice(device), "choosing the GPU");
  cudaStream_t stream = nullptr;
  LASP_RETURN_IF_CUDA_ERROR(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
                            "making a stream");
  auto context = std::unique_ptr<CudaContext>(new CudaContext(device, stream));
  LASP_ASSIGN_OR_RETURN(context->gemm_, CudaGemm::Create(stream));
  return context;
}

CudaContext::~CudaContext() {
  (void)cudaStreamSynchronize(stream_);
  (void)cudaStreamDestroy(stream_);
}

void CudaContext::Check(absl::Status status) {
  if (!status.ok()) {
    MutexLock lock(&mutex_);
    status_.Update(std::move(status));
  }
}

void CudaContext::Check(cudaError_t error, absl::string_view what) {
  if (error != cudaSuccess) {
    Check(CudaStatus(error, what));
  }
}

absl::Status CudaContext::status() const {
  MutexLock lock(&mutex_);
  return status_;
}

}  // namespace lasp::worker
