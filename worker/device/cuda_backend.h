// A Hopper GPU behind the device seam: activations and the weights of products in bf16, all that
// accumulates in fp32.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "worker/device/backend.h"

namespace lasp::worker {

struct CudaBackendOptions {
  int device = 0;  // among those that this process sees
  // An earlier run's GemmRecord; empty: none. As for PinGemms.
  std::string gemm_record = {};
};

class CudaBackend : public Backend {
 public:
  // The matrix products' algorithms chosen so far, for another run to use the same.
  virtual std::string GemmRecord() = 0;
  // Uses these algorithms from here on, and forgets all others: false, and nothing changes, where
  // they are another library version's or another kind of GPU's; INVALID_ARGUMENT for what is not
  // a GemmRecord.
  virtual absl::StatusOr<bool> PinGemms(const std::string& record) = 0;

  // The stream that operations go to, and to which they go from here on: a communicator's, for what
  // belongs between its operations.
  virtual cudaStream_t stream() const = 0;
  virtual void IssueTo(cudaStream_t stream) = 0;

  // From here on no update is made and none is counted, also of those that have been issued.
  // Thread-safe. To be called before communication is broken off: what waits for it then goes on,
  // with gradients that are only partly sums.
  virtual void StopUpdates() = 0;
};

// Call from the thread that will issue the operations. FAILED_PRECONDITION where there is no such
// GPU, or no driver.
absl::StatusOr<std::unique_ptr<CudaBackend>> CreateCudaBackend(const CudaBackendOptions& options);

}  // namespace lasp::worker
