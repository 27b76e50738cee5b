// A stream of communication beside the backend's stream of computation.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/device/cuda_backend.h"
#include "worker/device/cuda_stream.h"
#include "worker/parallel/communicator.h"

namespace lasp::worker {

// For the thread that issues to the backend, which must outlive this.
class SideStream {
 public:
  static absl::StatusOr<SideStream> Create(CudaBackend* backend);

  cudaStream_t get() const { return stream_.get(); }

  CudaBackend& backend() const { return *backend_; }

  // What is issued next starts when the backend's stream has come to where it is now.
  absl::Status FollowBackend();
  // What `work` gives to the backend goes to this stream.
  absl::Status Run(const std::function<absl::Status()>& work);

  // An operation that ends where the stream now stands, or has failed already with `status`; End is
  // a StreamEnd. `failure`: what is wrong with the communicator at the time of a wait.
  template <typename End>
  Operation EndsHere(absl::Status status, std::function<absl::Status()> failure,
                     absl::Duration timeout) {
    std::shared_ptr<CudaEvent> event;
    if (status.ok()) {
      absl::StatusOr<std::shared_ptr<CudaEvent>> marked = Mark();
      status = marked.status();
      if (marked.ok()) {
        event = *std::move(marked);
      }
    }
    return Operation(
        std::make_shared<End>(backend_, std::move(event), std::move(status), std::move(failure)),
        timeout);
  }

 private:
  SideStream(CudaBackend* backend, CudaStream stream, CudaEvent ready)
      : backend_(backend), stream_(std::move(stream)), ready_(std::move(ready)) {}

  absl::StatusOr<std::shared_ptr<CudaEvent>> Mark();

  CudaBackend* backend_;
  CudaStream stream_;
  // Where the backend's stream stood.
  CudaEvent ready_;
  // Those that nobody holds any more are used again.
  std::vector<std::shared_ptr<CudaEvent>> events_;
};

// An operation that ends at a mark of a side stream. A wait makes the backend's stream wait, and
// the host not at all.
class StreamEnd : public Completion {
 public:
  // As for SideStream::EndsHere. The event is null where the status is not OK.
  StreamEnd(CudaBackend* backend, std::shared_ptr<CudaEvent> event, absl::Status status,
            std::function<absl::Status()> failure)
      : backend_(*backend),
        event_(std::move(event)),
        status_(std::move(status)),
        failure_(std::move(failure)) {}

  absl::Status Wait(absl::Duration timeout) override;

 protected:
  const CudaEvent& event() const { return *event_; }

  // Of this operation, then of the communicator.
  absl::Status failure() const;

 private:
  CudaBackend& backend_;
  const std::shared_ptr<CudaEvent> event_;
  const absl::Status status_;
  const std::function<absl::Status()> failure_;
};

}  // namespace lasp::worker
