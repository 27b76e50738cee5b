// A copy of device memory in the host's, made beside the work that follows: what the device holds
// at one moment, for others to read while it goes on.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "worker/device/tensor.h"

namespace lasp::worker {

// Its memory is taken once, where it is made (Backend::CreateSnapshot). Take and HoldDevice belong
// to the thread that issues to the backend, Wait and data to any one.
class HostSnapshot {
 public:
  virtual ~HostSnapshot() = default;

  // Copies contiguous tensors, one behind the other, as what has been issued so far leaves them. On
  // a GPU it returns at once. The copy before it must have arrived.
  virtual absl::Status Take(const std::vector<Tensor>& sources) = 0;
  // What is issued from here on, and may change the sources, waits for the copy.
  virtual absl::Status HoldDevice() = 0;
  // Until the copy has arrived: DEADLINE_EXCEEDED after `timeout`.
  virtual absl::Status Wait(absl::Duration timeout) = 0;

  virtual const char* data() const = 0;
};

}  // namespace lasp::worker
