#include "worker/device/cuda_stream.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"
#include "worker/device/cuda_status.h"

namespace lasp::worker {
namespace {

// What CUDA's context, our kernels' code and NCCL's buffers take of a GPU's memory.
constexpr int64_t kOverheadBytes = int64_t{2} << 30;

class CudaMemory : public DeviceBuffer {
 public:
  // `free`: cudaFree or cudaFreeHost.
  CudaMemory(void* data, int64_t bytes, cudaError_t (*free)(void*))
      : data_(data), bytes_(bytes), free_(free) {}

  ~CudaMemory() override { (void)free_(data_); }

  void* data() const override { return data_; }

  int64_t bytes() const override { return bytes_; }

 private:
  void* const data_;
  const int64_t bytes_;
  cudaError_t (*const free_)(void*);
};

}  // namespace

absl::StatusOr<CudaStream> CudaStream::Create() {
  int least = 0;
  int greatest = 0;
  LASP_RETURN_IF_ERROR(
      CudaStatus(cudaDeviceGetStreamPriorityRange(&least, &greatest), "making a stream"));
  cudaStream_t stream = nullptr;
  LASP_RETURN_IF_ERROR(CudaStatus(
      cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest), "making a stream"));
  return CudaStream(stream);
}

CudaStream::~CudaStream() {
  if (stream_ != nullptr) {
    cudaStreamDestroy(stream_);
  }
}

absl::StatusOr<CudaEvent> CudaEvent::Create() {
  cudaEvent_t event = nullptr;
  LASP_RETURN_IF_ERROR(
      CudaStatus(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event"));
  return CudaEvent(event);
}

CudaEvent::~CudaEvent() {
  if (event_ != nullptr) {
    cudaEventDestroy(event_);
  }
}

absl::StatusOr<std::unique_ptr<DeviceBuffer>> AllocateDeviceMemory(int64_t bytes) {
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, static_cast<size_t>(bytes));
  if (error != cudaSuccess) {
    (void)cudaGetLastError();
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    cudaMemGetInfo(&free_bytes, &total_bytes);
    const std::string message =
        absl::StrCat("cannot allocate ", bytes, " bytes on the GPU, of whose ", total_bytes,
                     " bytes ", free_bytes, " are free");
    return bytes + kOverheadBytes > static_cast<int64_t>(total_bytes)
               ? absl::FailedPreconditionError(message)
               : absl::ResourceExhaustedError(message);
  }
  auto buffer = std::make_unique<CudaMemory>(data, bytes, cudaFree);
  LASP_RETURN_IF_CUDA_ERROR(cudaMemset(data, 0, static_cast<size_t>(bytes)), "clearing memory");
  // Streams of ours do not wait for the default one, which clears.
  LASP_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(nullptr), "clearing memory");
  return buffer;
}

absl::StatusOr<std::unique_ptr<DeviceBuffer>> AllocatePinnedMemory(int64_t bytes) {
  void* data = nullptr;
  const cudaError_t error = cudaMallocHost(&data, static_cast<size_t>(bytes));
  if (error != cudaSuccess) {
    (void)cudaGetLastError();
    return absl::ResourceExhaustedError(absl::StrCat(
        "cannot allocate ", bytes, " bytes of pinned host memory: ", cudaGetErrorString(error)));
  }
  return std::make_unique<CudaMemory>(data, bytes, cudaFreeHost);
}

}  // namespace lasp::worker
