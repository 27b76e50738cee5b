// One allocation, planned before the first step: nothing is allocated while training. The plan is
// made by running the same code twice, first over an arena that only measures.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "worker/device/backend.h"
#include "worker/device/memory_bill.h"
#include "worker/device/tensor.h"

namespace lasp::worker {

class Arena {
 public:
  // Measures: every tensor it hands out is empty.
  Arena() = default;
  // Hands out pieces of one buffer of `bytes`.
  static absl::StatusOr<Arena> Create(Backend& backend, int64_t bytes);

  // A contiguous, zeroed tensor. The sizes must not exceed what was measured.
  Tensor Take(MemoryUse use, DType dtype, int64_t rows, int64_t columns);

  // All that there is to hand out, in words of 4 bytes; empty where it only measures.
  Tensor whole() const;

  // What has been taken, padding included.
  const MemoryBill& bill() const { return bill_; }

  int64_t used_bytes() const { return bill_.total(); }

 private:
  std::unique_ptr<DeviceBuffer> buffer_;
  MemoryBill bill_;
};

}  // namespace lasp::worker
