#include "worker/device/arena.h"

#include <cassert>
#include <utility>

#include "proto/rpc/status_macros.h"

namespace lasp::worker {
namespace {

// What matrix products on a GPU ask of their workspace; vector loads of a CPU want less.
constexpr int64_t kAlignment = 256;

}  // namespace

absl::StatusOr<Arena> Arena::Create(Backend& backend, int64_t bytes) {
  Arena arena;
  LASP_ASSIGN_OR_RETURN(arena.buffer_, backend.Allocate(bytes));
  return arena;
}

Tensor Arena::Take(MemoryUse use, DType dtype, int64_t rows, int64_t columns) {
  Tensor tensor{nullptr, dtype, rows, columns, columns};
  if (buffer_ != nullptr) {
    assert(used_bytes() + tensor.bytes() <= buffer_->bytes());
    tensor.data = static_cast<char*>(buffer_->data()) + used_bytes();
  }
  bill_[use] += (tensor.bytes() + kAlignment - 1) / kAlignment * kAlignment;
  return tensor;
}

Tensor Arena::whole() const {
  if (buffer_ == nullptr) {
    return {};
  }
  const int64_t words = buffer_->bytes() / SizeOf(DType::kInt32);
  return {buffer_->data(), DType::kInt32, 1, words, words};
}

}  // namespace lasp::worker
