// Where device memory goes that is not needed for a while: slots in the host's memory, and copies
// there and back beside the work that follows.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "worker/device/tensor.h"

namespace lasp::worker {

// Its memory is taken once, where it is made (Backend::CreateStash). Belongs to the thread that
// issues to the backend. On a GPU no call waits; copies run in the order of the calls.
class HostStash {
 public:
  virtual ~HostStash() = default;

  // Copies a contiguous tensor into a slot, as what has been issued so far leaves it. It must not
  // change before the slot is held.
  virtual absl::Status Store(int64_t slot, Tensor source) = 0;
  // Copies back what a tensor of the same size was. What has been issued so far may still use the
  // destination; what follows may not before the slot is held.
  virtual absl::Status Load(int64_t slot, Tensor destination) = 0;
  // What is issued from here on waits for the slot's last copy.
  virtual absl::Status Hold(int64_t slot) = 0;
};

}  // namespace lasp::worker
