#include "worker/parallel/stream_progress.h"

#include <atomic>

#include "proto/rpc/status_macros.h"
#include "worker/device/cuda_status.h"
#include "worker/device/cuda_stream.h"
#include "worker/device/stream_word.h"

namespace lasp::worker {
namespace {

constexpr int kBegun = 0;
constexpr int kEnded = 1;

}  // namespace

absl::StatusOr<std::unique_ptr<StreamProgress>> StreamProgress::Create() {
  LASP_RETURN_IF_ERROR(CheckStreamWords());
  LASP_ASSIGN_OR_RETURN(auto memory, AllocatePinnedMemory(2 * sizeof(uint32_t)));
  auto* const numbers = static_cast<uint32_t*>(memory->data());
  numbers[kBegun] = 0;
  numbers[kEnded] = 0;
  void* device_memory = nullptr;
  LASP_RETURN_IF_ERROR(
      CudaStatus(cudaHostGetDevicePointer(&device_memory, memory->data(), 0), "mapping memory"));
  return std::unique_ptr<StreamProgress>(new StreamProgress(std::move(memory), device_memory));
}

absl::Status StreamProgress::Write(cudaStream_t stream, int place, uint32_t value) {
  return WriteWord(stream, static_cast<uint32_t*>(device_memory_) + place, value);
}

absl::Status StreamProgress::Begin(cudaStream_t stream) { return Write(stream, kBegun, ++issued_); }

absl::Status StreamProgress::End(cudaStream_t stream) { return Write(stream, kEnded, issued_); }

StreamProgress::Numbers StreamProgress::Read() const {
  auto* const numbers = static_cast<uint32_t*>(memory_->data());
  // The end first: a collective that begins in between then counts as under way, not as ended
  // before it began.
  const uint32_t ended = std::atomic_ref(numbers[kEnded]).load(std::memory_order_acquire);
  const uint32_t begun = std::atomic_ref(numbers[kBegun]).load(std::memory_order_acquire);
  return {.begun = begun, .ended = ended};
}

}  // namespace lasp::worker
