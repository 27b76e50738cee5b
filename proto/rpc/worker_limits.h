// Bounds of the worker plane that both of its ends keep.
#pragma once

#include <cstddef>

namespace lasp {

// Slots of one worker.
inline constexpr int kMaxWorkerSlots = 1'024;
// RankReady.gemm_record.
inline constexpr size_t kMaxGemmRecordBytes = size_t{64} << 10;

}  // namespace lasp
