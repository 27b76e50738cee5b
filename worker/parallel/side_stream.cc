#include "worker/parallel/side_stream.h"

#include "proto/rpc/status_macros.h"
#include "worker/device/cuda_status.h"

namespace lasp::worker {

absl::StatusOr<SideStream> SideStream::Create(CudaBackend* backend) {
  LASP_ASSIGN_OR_RETURN(CudaStream stream, CudaStream::Create());
  LASP_ASSIGN_OR_RETURN(CudaEvent ready, CudaEvent::Create());
  return SideStream(backend, std::move(stream), std::move(ready));
}

absl::Status SideStream::FollowBackend() {
  LASP_RETURN_IF_CUDA_ERROR(cudaEventRecord(ready_.get(), backend_->stream()),
                            "marking the backend's stream");
  return CudaStatus(cudaStreamWaitEvent(stream_.get(), ready_.get(), 0),
                    "waiting for the backend's stream");
}

absl::Status SideStream::Run(const std::function<absl::Status()>& work) {
  const cudaStream_t before = backend_->stream();
  backend_->IssueTo(stream_.get());
  absl::Status status = work();
  backend_->IssueTo(before);
  return status;
}

absl::StatusOr<std::shared_ptr<CudaEvent>> SideStream::Mark() {
  std::shared_ptr<CudaEvent> event;
  for (const std::shared_ptr<CudaEvent>& spare : events_) {
    if (spare.use_count() == 1) {
      event = spare;
      break;
    }
  }
  if (event == nullptr) {
    LASP_ASSIGN_OR_RETURN(CudaEvent made, CudaEvent::Create());
    event = std::make_shared<CudaEvent>(std::move(made));
    events_.push_back(event);
  }
  LASP_RETURN_IF_CUDA_ERROR(cudaEventRecord(event->get(), stream_.get()), "marking a stream");
  return event;
}

absl::Status StreamEnd::failure() const {
  LASP_RETURN_IF_ERROR(status_);
  return failure_();
}

absl::Status StreamEnd::Wait(absl::Duration /*timeout*/) {
  LASP_RETURN_IF_ERROR(failure());
  return CudaStatus(cudaStreamWaitEvent(backend_.stream(), event_->get(), 0),
                    "waiting for a communicator");
}

}  // namespace lasp::worker
