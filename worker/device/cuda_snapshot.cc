#include "worker/device/cuda_snapshot.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/mutex.h"
#include "proto/rpc/status_macros.h"
#include "worker/device/cuda_status.h"
#include "worker/device/cuda_stream.h"

namespace lasp::worker {
namespace {

class CudaSnapshot : public HostSnapshot {
 public:
  CudaSnapshot(CudaContext* context, std::unique_ptr<DeviceBuffer> memory, CudaStream stream,
               CudaEvent begin, CudaEvent end)
      : context_(*context),
        memory_(std::move(memory)),
        stream_(std::move(stream)),
        begin_(std::move(begin)),
        end_(std::move(end)) {}

  // The copy writes to memory of this, and tells this of its end.
  ~CudaSnapshot() override { (void)cudaStreamSynchronize(stream_.get()); }

  absl::Status Take(const std::vector<Tensor>& sources) override {
    LASP_RETURN_IF_CUDA_ERROR(cudaEventRecord(begin_.get(), context_.stream()),
                              "marking what to copy");
    LASP_RETURN_IF_CUDA_ERROR(cudaStreamWaitEvent(stream_.get(), begin_.get(), 0),
                              "waiting for what to copy");
    {
      MutexLock lock(&mutex_);
      arrived_ = false;
    }
    auto* to = static_cast<char*>(memory_->data());
    for (const Tensor& source : sources) {
      if (source.bytes() > 0) {
        LASP_RETURN_IF_CUDA_ERROR(
            cudaMemcpyAsync(to, source.data, static_cast<size_t>(source.bytes()),
                            cudaMemcpyDeviceToHost, stream_.get()),
            "copying a snapshot from the GPU");
      }
      to += source.bytes();
    }
    LASP_RETURN_IF_CUDA_ERROR(cudaEventRecord(end_.get(), stream_.get()), "marking a copy's end");
    held_ = false;
    return CudaStatus(cudaLaunchHostFunc(stream_.get(), &CudaSnapshot::Arrived, this),
                      "asking for a copy's end");
  }

  absl::Status HoldDevice() override {
    if (std::exchange(held_, true)) {
      return absl::OkStatus();
    }
    return CudaStatus(cudaStreamWaitEvent(context_.stream(), end_.get(), 0),
                      "waiting for a snapshot");
  }

  absl::Status Wait(absl::Duration timeout) override {
    const absl::Duration deadline = SystemClock().Monotonic() + timeout;
    MutexLock lock(&mutex_);
    while (!arrived_) {
      const absl::Duration left = deadline - SystemClock().Monotonic();
      if (left <= absl::ZeroDuration()) {
        return absl::DeadlineExceededError(absl::StrCat(
            "a snapshot has not come from the GPU within ", absl::FormatDuration(timeout)));
      }
      changed_.WaitWithTimeout(&mutex_, left);
    }
    return absl::OkStatus();
  }

  const char* data() const override { return static_cast<const char*>(memory_->data()); }

 private:
  // On a thread of CUDA's, which must not call CUDA.
  static void Arrived(void* snapshot) {
    auto* const self = static_cast<CudaSnapshot*>(snapshot);
    MutexLock lock(&self->mutex_);
    self->arrived_ = true;
    self->changed_.NotifyAll();
  }

  CudaContext& context_;
  const std::unique_ptr<DeviceBuffer> memory_;
  const CudaStream stream_;
  const CudaEvent begin_;
  const CudaEvent end_;
  // Whether the backend's stream waits for the last copy already.
  bool held_ = true;
  Mutex mutex_;
  CondVar changed_;
  bool arrived_ GUARDED_BY(mutex_) = true;
};

}  // namespace

absl::StatusOr<std::unique_ptr<HostSnapshot>> CreateCudaSnapshot(CudaContext* context,
                                                                 int64_t bytes) {
  LASP_ASSIGN_OR_RETURN(auto memory, AllocatePinnedMemory(std::max<int64_t>(bytes, 1)));
  LASP_ASSIGN_OR_RETURN(CudaStream stream, CudaStream::Create());
  LASP_ASSIGN_OR_RETURN(CudaEvent begin, CudaEvent::Create());
  LASP_ASSIGN_OR_RETURN(CudaEvent end, CudaEvent::Create());
  return std::make_unique<CudaSnapshot>(context, std::move(memory), std::move(stream),
                                        std::move(begin), std::move(end));
}

}  // namespace lasp::worker
