// Slots in pinned host memory for a GPU, copied on a stream of their own.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "worker/device/cuda_context.h"
#include "worker/device/host_stash.h"

namespace lasp::worker {

// `context` must outlive it. RESOURCE_EXHAUSTED names the size.
absl::StatusOr<std::unique_ptr<HostStash>> CreateCudaStash(CudaContext* context, int64_t slots,
                                                           int64_t slot_bytes);

}  // namespace lasp::worker
