// A number in host memory that the host writes and kernels read while they run.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "worker/device/backend.h"

namespace lasp::worker {

class PinnedWord {
 public:
  // 0, and for the current device.
  static absl::StatusOr<std::unique_ptr<PinnedWord>> Create();

  // Thread-safe. Kernels that begin later see it, and what the device does once it has been told
  // to by something that the host did later.
  void Store(uint32_t value);

  // As the device addresses it.
  const uint32_t* on_device() const { return on_device_; }

 private:
  PinnedWord(std::unique_ptr<DeviceBuffer> memory, const uint32_t* on_device)
      : memory_(std::move(memory)), on_device_(on_device) {}

  const std::unique_ptr<DeviceBuffer> memory_;
  const uint32_t* const on_device_;
};

}  // namespace lasp::worker
