#include "worker/device/stream_word.h"

#include <cuda.h>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"
#include "worker/device/cuda_status.h"

namespace lasp::worker {
namespace {

using WordOperation = CUresult (*)(CUstream, CUdeviceptr, cuuint32_t, unsigned int);

// The driver is found at run time, so that programs start on machines without one.
absl::StatusOr<WordOperation> Find(const char* name) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  LASP_RETURN_IF_CUDA_ERROR(
      cudaGetDriverEntryPointByVersion(name, &function, 12000, cudaEnableDefault, &result),
      "asking the driver");
  if (result != cudaDriverEntryPointSuccess || function == nullptr) {
    return absl::FailedPreconditionError(
        "the driver has no stream memory operations: it must be that of CUDA 12.4 or newer");
  }
  return reinterpret_cast<WordOperation>(function);
}

const absl::StatusOr<WordOperation>& Writing() {
  static const absl::StatusOr<WordOperation> kWriting = Find("cuStreamWriteValue32");
  return kWriting;
}

const absl::StatusOr<WordOperation>& Waiting() {
  static const absl::StatusOr<WordOperation> kWaiting = Find("cuStreamWaitValue32");
  return kWaiting;
}

absl::Status Issue(const absl::StatusOr<WordOperation>& operation, cudaStream_t stream,
                   uint32_t* word, uint32_t value, unsigned int flags) {
  LASP_RETURN_IF_ERROR(operation.status());
  const CUresult result = (*operation)(stream, reinterpret_cast<CUdeviceptr>(word), value, flags);
  if (result != CUDA_SUCCESS) {
    return absl::UnavailableError(
        absl::StrCat("a stream memory operation: driver error ", static_cast<int>(result)));
  }
  return absl::OkStatus();
}

// Without the flush a GPU may show the word before the data that came ahead of it.
unsigned int WaitFlags() {
  int device = 0;
  int can_flush = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&can_flush, cudaDevAttrCanFlushRemoteWrites, device) != cudaSuccess) {
    (void)cudaGetLastError();
  }
  unsigned int flags = CU_STREAM_WAIT_VALUE_GEQ;
  if (can_flush != 0) {
    flags |= CU_STREAM_WAIT_VALUE_FLUSH;
  }
  return flags;
}

}  // namespace

absl::Status CheckStreamWords() {
  LASP_RETURN_IF_ERROR(Writing().status());
  return Waiting().status();
}

absl::Status WriteWord(cudaStream_t stream, uint32_t* word, uint32_t value) {
  return Issue(Writing(), stream, word, value, CU_STREAM_WRITE_VALUE_DEFAULT);
}

absl::Status WaitForWord(cudaStream_t stream, uint32_t* word, uint32_t value) {
  static const unsigned int kFlags = WaitFlags();
  return Issue(Waiting(), stream, word, value, kFlags);
}

}  // namespace lasp::worker
