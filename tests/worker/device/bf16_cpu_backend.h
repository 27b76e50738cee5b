// The CPU in fp32 that rounds to bf16 where a GPU does: whatever the GPU's backend keeps in bf16
// between operations. What the GPU rounds within an operation (attention's weights and states as
// operands of products) is not rounded here.
#pragma once

#include <memory>

#include "worker/device/backend.h"

namespace lasp::worker {

// Slow: every operation converts its operands.
std::unique_ptr<Backend> CreateBf16CpuBackend(int threads);

}  // namespace lasp::worker
