// How far a stream has come with its collectives, told to the host by the stream itself: each one
// writes its number into pinned memory when it begins and when it has ended. Also from within a
// recorded graph, and without a call into the driver that could wait for the device.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/device/backend.h"

namespace lasp::worker {

class StreamProgress {
 public:
  // Numbers from 1; none is 0.
  struct Numbers {
    uint32_t begun = 0;
    uint32_t ended = 0;
  };

  // Of the current device.
  static absl::StatusOr<std::unique_ptr<StreamProgress>> Create();

  // Issued by one thread, around each collective.
  absl::Status Begin(cudaStream_t stream);
  absl::Status End(cudaStream_t stream);

  // Thread-safe.
  Numbers Read() const;

 private:
  StreamProgress(std::unique_ptr<DeviceBuffer> memory, void* device_memory)
      : memory_(std::move(memory)), device_memory_(device_memory) {}

  absl::Status Write(cudaStream_t stream, int place, uint32_t value);

  const std::unique_ptr<DeviceBuffer> memory_;  // begun, ended
  void* const device_memory_;                   // the same, as the device addresses it
  uint32_t issued_ = 0;
};

}  // namespace lasp::worker
