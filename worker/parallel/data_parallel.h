// How gradients become the sum over all ranks.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "worker/device/tensor.h"
#include "worker/parallel/communicator.h"

namespace lasp::worker {

// Backward runs through the parameters from the last to the first, and tells how far it has come:
// what is final is reduced under the rest of the backward pass.
class DataParallel {
 public:
  virtual ~DataParallel() = default;

  // Gradients at `offset` and above are final on this rank. Offsets fall within a step.
  virtual void GradientsFinalFrom(int64_t offset) = 0;
  // All gradients are final. Waits until every one is the sum over the world, and makes ready for
  // the next step.
  virtual absl::Status Finish() = 0;
};

// Distributed data parallel: whole gradients on every rank, reduced in buckets of
// `bucket_elements`, from the last to the first. `gradients` [1, n] is this rank's buffer; `world`
// must outlive the result.
std::unique_ptr<DataParallel> CreateDdp(Communicator* world, Tensor gradients,
                                        int64_t bucket_elements);

}  // namespace lasp::worker
