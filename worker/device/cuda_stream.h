// Streams, events and memory of a GPU, owned.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "worker/device/backend.h"

namespace lasp::worker {

// Of the GPU that is current where it is made.
class CudaStream {
 public:
  // Does not wait for the default stream; its kernels go before those of streams made otherwise.
  static absl::StatusOr<CudaStream> Create();
  ~CudaStream();

  CudaStream(CudaStream&& other) noexcept : stream_(std::exchange(other.stream_, nullptr)) {}

  CudaStream& operator=(CudaStream&& other) noexcept {
    std::swap(stream_, other.stream_);
    return *this;
  }

  cudaStream_t get() const { return stream_; }

 private:
  explicit CudaStream(cudaStream_t stream) : stream_(stream) {}

  cudaStream_t stream_ = nullptr;
};

class CudaEvent {
 public:
  // Takes no times.
  static absl::StatusOr<CudaEvent> Create();
  ~CudaEvent();

  CudaEvent(CudaEvent&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}

  CudaEvent& operator=(CudaEvent&& other) noexcept {
    std::swap(event_, other.event_);
    return *this;
  }

  cudaEvent_t get() const { return event_; }

 private:
  explicit CudaEvent(cudaEvent_t event) : event_(event) {}

  cudaEvent_t event_ = nullptr;
};

// Device memory, zeroed. Says what was asked for and what is free: FAILED_PRECONDITION where all of
// the GPU's memory would not be enough, RESOURCE_EXHAUSTED where something else holds it.
absl::StatusOr<std::unique_ptr<DeviceBuffer>> AllocateDeviceMemory(int64_t bytes);
// Host memory that the GPU reads and writes by itself.
absl::StatusOr<std::unique_ptr<DeviceBuffer>> AllocatePinnedMemory(int64_t bytes);

}  // namespace lasp::worker
