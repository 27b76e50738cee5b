#include "worker/parallel/stream_progress.h"

#include <cuda.h>

#include <atomic>

#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"
#include "worker/device/cuda_status.h"
#include "worker/device/cuda_stream.h"

namespace lasp::worker {
namespace {

constexpr int kBegun = 0;
constexpr int kEnded = 1;

// The driver is found at run time, so that programs start on machines without one.
using WriteValue = CUresult (*)(CUstream, CUdeviceptr, cuuint32_t, unsigned int);

absl::StatusOr<WriteValue> FindWriteValue() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  LASP_RETURN_IF_ERROR(
      CudaStatus(cudaGetDriverEntryPointByVersion("cuStreamWriteValue32", &function, 12000,
                                                  cudaEnableDefault, &result),
                 "asking the driver"));
  if (result != cudaDriverEntryPointSuccess || function == nullptr) {
    return absl::FailedPreconditionError(
        "the driver has no stream memory operations: it must be that of CUDA 12.4 or newer");
  }
  return reinterpret_cast<WriteValue>(function);
}

}  // namespace

absl::StatusOr<std::unique_ptr<StreamProgress>> StreamProgress::Create() {
  LASP_RETURN_IF_ERROR(FindWriteValue().status());
  LASP_ASSIGN_OR_RETURN(auto memory, AllocatePinnedMemory(2 * sizeof(uint32_t)));
  auto* const numbers = static_cast<uint32_t*>(memory->data());
  numbers[kBegun] = 0;
  numbers[kEnded] = 0;
  void* device_memory = nullptr;
  LASP_RETURN_IF_ERROR(
      CudaStatus(cudaHostGetDevicePointer(&device_memory, memory->data(), 0), "mapping memory"));
  return std::unique_ptr<StreamProgress>(new StreamProgress(std::move(memory), device_memory));
}

absl::Status StreamProgress::Write(cudaStream_t stream, int place, uint32_t value) {
  static const absl::StatusOr<WriteValue> kWrite = FindWriteValue();
  LASP_RETURN_IF_ERROR(kWrite.status());
  const auto address =
      reinterpret_cast<CUdeviceptr>(static_cast<uint32_t*>(device_memory_) + place);
  const CUresult result = (*kWrite)(stream, address, value, 0);
  if (result != CUDA_SUCCESS) {
    return absl::UnavailableError(
        absl::StrCat("marking progress in a stream: driver error ", static_cast<int>(result)));
  }
  return absl::OkStatus();
}

absl::Status StreamProgress::Begin(cudaStream_t stream) { return Write(stream, kBegun, ++issued_); }

absl::Status StreamProgress::End(cudaStream_t stream) { return Write(stream, kEnded, issued_); }

StreamProgress::Numbers StreamProgress::Read() const {
  auto* const numbers = static_cast<uint32_t*>(memory_->data());
  // The end first: a collective that begins in between then counts as under way, not as ended
  // before it began.
  const uint32_t ended = std::atomic_ref(numbers[kEnded]).load(std::memory_order_acquire);
  const uint32_t begun = std::atomic_ref(numbers[kBegun]).load(std::memory_order_acquire);
  return {.begun = begun, .ended = ended};
}

}  // namespace lasp::worker
