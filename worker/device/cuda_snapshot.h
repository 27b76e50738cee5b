// A GPU's memory copied into pinned host memory, on a stream of its own.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "worker/device/cuda_context.h"
#include "worker/device/host_snapshot.h"

namespace lasp::worker {

// Of `bytes`. `context` must outlive it. RESOURCE_EXHAUSTED names the size.
absl::StatusOr<std::unique_ptr<HostSnapshot>> CreateCudaSnapshot(CudaContext* context,
                                                                 int64_t bytes);

}  // namespace lasp::worker
