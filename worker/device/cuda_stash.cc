#include "worker/device/cuda_stash.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "proto/rpc/status_macros.h"
#include "worker/device/cuda_status.h"
#include "worker/device/cuda_stream.h"

namespace lasp::worker {
namespace {

class CudaStash : public HostStash {
 public:
  CudaStash(CudaContext* context, std::unique_ptr<DeviceBuffer> memory, int64_t slot_bytes,
            CudaStream stream, CudaEvent begin, std::vector<CudaEvent> ends)
      : context_(*context),
        memory_(std::move(memory)),
        slot_bytes_(slot_bytes),
        stream_(std::move(stream)),
        begin_(std::move(begin)),
        ends_(std::move(ends)) {}

  // Copies reach into memory of this.
  ~CudaStash() override { (void)cudaStreamSynchronize(stream_.get()); }

  absl::Status Store(int64_t slot, Tensor source) override {
    return Copy(slot, At(slot), source.data, source.bytes(), cudaMemcpyDeviceToHost);
  }

  absl::Status Load(int64_t slot, Tensor destination) override {
    return Copy(slot, destination.data, At(slot), destination.bytes(), cudaMemcpyHostToDevice);
  }

  absl::Status Hold(int64_t slot) override {
    return CudaStatus(cudaStreamWaitEvent(context_.stream(), ends_[slot].get(), 0),
                      "waiting for a copy between GPU and host");
  }

 private:
  char* At(int64_t slot) const { return static_cast<char*>(memory_->data()) + slot * slot_bytes_; }

  absl::Status Copy(int64_t slot, void* to, const void* from, int64_t bytes, cudaMemcpyKind kind) {
    LASP_RETURN_IF_CUDA_ERROR(cudaEventRecord(begin_.get(), context_.stream()),
                              "marking what to copy");
    LASP_RETURN_IF_CUDA_ERROR(cudaStreamWaitEvent(stream_.get(), begin_.get(), 0),
                              "waiting for what to copy");
    LASP_RETURN_IF_CUDA_ERROR(
        cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), kind, stream_.get()),
        "copying between GPU and host");
    return CudaStatus(cudaEventRecord(ends_[slot].get(), stream_.get()), "marking a copy's end");
  }

  CudaContext& context_;
  const std::unique_ptr<DeviceBuffer> memory_;
  const int64_t slot_bytes_;
  const CudaStream stream_;
  const CudaEvent begin_;
  // Of each slot's last copy.
  const std::vector<CudaEvent> ends_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<HostStash>> CreateCudaStash(CudaContext* context, int64_t slots,
                                                           int64_t slot_bytes) {
  LASP_ASSIGN_OR_RETURN(auto memory,
                        AllocatePinnedMemory(std::max<int64_t>(slots * slot_bytes, 1)));
  LASP_ASSIGN_OR_RETURN(CudaStream stream, CudaStream::Create());
  LASP_ASSIGN_OR_RETURN(CudaEvent begin, CudaEvent::Create());
  std::vector<CudaEvent> ends;
  ends.reserve(static_cast<size_t>(slots));
  for (int64_t slot = 0; slot < slots; ++slot) {
    LASP_ASSIGN_OR_RETURN(CudaEvent end, CudaEvent::Create());
    ends.push_back(std::move(end));
  }
  return std::make_unique<CudaStash>(context, std::move(memory), slot_bytes, std::move(stream),
                                     std::move(begin), std::move(ends));
}

}  // namespace lasp::worker
