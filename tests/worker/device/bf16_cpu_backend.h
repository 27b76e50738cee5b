// The CPU in fp32 that rounds to bf16 where a GPU does: whatever the GPU's backend keeps in bf16
// between operations, and within attention the operands of products (rounding_attention.h).
#pragma once

#include <memory>

#include "worker/device/backend.h"

namespace lasp::worker {

// Slow: every operation converts its operands.
std::unique_ptr<Backend> CreateBf16CpuBackend(int threads);

}  // namespace lasp::worker
