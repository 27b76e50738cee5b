// What the operations of one GPU share: the stream, its workspace, and the first thing that went
// wrong.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/rpc/mutex.h"
#include "worker/device/cuda_gemm.h"
#include "worker/device/cuda_phase_clock.h"

namespace lasp::worker {

// Issuing is for one thread at a time, but for what says otherwise.
class CudaContext {
 public:
  // Makes `device` the calling thread's. FAILED_PRECONDITION names a GPU that is not there, or
  // whose kind our kernels were not built for.
  static absl::StatusOr<std::unique_ptr<CudaContext>> Create(int device);
  ~CudaContext();
  CudaContext(const CudaContext&) = delete;
  CudaContext& operator=(const CudaContext&) = delete;

  int device() const { return device_; }

  // That work goes to: its own, unless IssueTo names another. Matrix products and phases keep to
  // its own.
  cudaStream_t stream() const { return issuing_; }

  void IssueTo(cudaStream_t stream) { issuing_ = stream; }

  CudaGemm& gemm() { return *gemm_; }

  CudaPhaseClock& phases() { return phases_; }

  // Memory for one operation, aligned to 256 bytes; another operation may use it next.
  void* workspace() const { return workspace_; }

  void set_workspace(void* workspace) { workspace_ = workspace; }

  // Keeps the first failure. Thread-safe.
  void Check(absl::Status status);
  void Check(cudaError_t error, absl::string_view what);

  // The first failure. Thread-safe.
  absl::Status status() const;

  bool ok() const { return status().ok(); }

 private:
  CudaContext(int device, cudaStream_t stream)
      : device_(device), stream_(stream), issuing_(stream), phases_(stream) {}

  const int device_;
  const cudaStream_t stream_;
  cudaStream_t issuing_;
  CudaPhaseClock phases_;
  std::unique_ptr<CudaGemm> gemm_;
  void* workspace_ = nullptr;
  mutable Mutex mutex_;
  absl::Status status_ GUARDED_BY(mutex_);
};

}  // namespace lasp::worker
