#include "worker/device/pinned_word.h"

#include <atomic>

#include "proto/rpc/status_macros.h"
#include "worker/device/cuda_status.h"
#include "worker/device/cuda_stream.h"

namespace lasp::worker {

absl::StatusOr<std::unique_ptr<PinnedWord>> PinnedWord::Create() {
  LASP_ASSIGN_OR_RETURN(auto memory, AllocatePinnedMemory(sizeof(uint32_t)));
  void* on_device = nullptr;
  LASP_RETURN_IF_CUDA_ERROR(cudaHostGetDevicePointer(&on_device, memory->data(), 0),
                            "mapping memory");
  auto word = std::unique_ptr<PinnedWord>(
      new PinnedWord(std::move(memory), static_cast<const uint32_t*>(on_device)));
  word->Store(0);
  return word;
}

void PinnedWord::Store(uint32_t value) {
  std::atomic_ref(*static_cast<uint32_t*>(memory_->data())).store(value);
}

}  // namespace lasp::worker
