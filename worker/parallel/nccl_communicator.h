// A communicator over NCCL: operations go to a stream of their own, beside the computation, and
// return at once.
#pragma once

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "proto/rpc/mutex.h"
#include "worker/device/cuda_backend.h"
#include "worker/device/cuda_stream.h"
#include "worker/parallel/communicator.h"
#include "worker/parallel/stream_progress.h"

namespace lasp::worker {

// Issued to by the thread that issues to `backend`; watched by another. An operation starts after
// what was issued to the backend's stream before it; Wait makes that stream wait for the operation,
// and the host only for a barrier.
class NcclCommunicator : public Communicator {
 public:
  // Asked while the host waits for NCCL: not OK ends the wait with it.
  using Interruption = std::function<absl::Status()>;

  // Takes over `communicator`, a non-blocking one, and waits until it is ready. `backend` must
  // outlive this. No wait of the host lasts longer than `timeout`, or goes on after `interruption`.
  static absl::StatusOr<std::unique_ptr<NcclCommunicator>> Create(CudaBackend* backend,
                                                                  ncclComm_t communicator,
                                                                  absl::string_view name,
                                                                  absl::Duration timeout,
                                                                  Interruption interruption);
  // Aborts what is under way.
  ~NcclCommunicator() override;
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  int rank() const override { return rank_; }

  int size() const override { return size_; }

  Operation Send(Tensor data, int peer) override;
  Operation Receive(Tensor data, int peer) override;
  // Issues `work` to the communicator's stream, on the calling thread.
  Operation Run(std::function<absl::Status()> work) override;
  // In the order of NCCL's algorithm, which depends on the size and the ranks alone.
  Operation AllReduceSum(Tensor data) override;
  Operation Broadcast(Tensor data, int root) override;
  Operation AllGather(Tensor part, Tensor whole) override;
  Operation Barrier() override;

  CommunicatorCounters counters() const override { return {sent_bytes_}; }

  // A part of this one's ranks: those that give the same `color`, in the order of `key`. Every rank
  // calls it.
  absl::StatusOr<std::unique_ptr<NcclCommunicator>> Split(int color, int key,
                                                          absl::string_view name);

  // For the thread that watches. What NCCL reports of work under way, or what is wrong already.
  absl::Status AsyncStatus();

  StreamProgress::Numbers progress() const { return progress_->Read(); }

  // Ends everything under way with `why`; later operations fail with it at once. Thread-safe.
  void Abort(const absl::Status& why);

  const std::string& name() const { return name_; }

 private:
  class StreamEnd;
  class HostEnd;

  NcclCommunicator(CudaBackend* backend, ncclComm_t communicator, absl::string_view name,
                   absl::Duration timeout, Interruption interruption, CudaStream stream,
                   CudaEvent ready, std::unique_ptr<StreamProgress> progress)
      : backend_(*backend),
        name_(name),
        timeout_(timeout),
        interruption_(std::move(interruption)),
        stream_(std::move(stream)),
        ready_(std::move(ready)),
        progress_(std::move(progress)),
        communicator_(communicator) {}

  // The stream goes on when the backend's has come to where it is now.
  absl::Status FollowBackend();
  // Issues `work` between marks of progress, after what the backend's stream holds so far.
  absl::Status Issue(const std::function<ncclResult_t(ncclComm_t)>& work);
  Operation Enqueue(const std::function<ncclResult_t(ncclComm_t)>& work);
  // An operation that ends where the stream now stands, or has failed already.
  template <typename End>
  Operation EndsHere(absl::Status status);
  absl::StatusOr<std::shared_ptr<CudaEvent>> MarkStream();
  // Why the host should wait for NCCL no longer, if so.
  absl::Status CheckWait(absl::Duration deadline, absl::string_view what) const;
  // Polls while NCCL says that it is in progress.
  absl::Status Settle(ncclComm_t communicator, ncclResult_t result, absl::string_view what);
  absl::Status failure() const;

  CudaBackend& backend_;
  const std::string name_;
  const absl::Duration timeout_;
  const Interruption interruption_;
  int rank_ = 0;
  int size_ = 0;
  const CudaStream stream_;
  // Where the backend's stream stood when an operation was issued.
  const CudaEvent ready_;
  const std::unique_ptr<StreamProgress> progress_;
  std::unique_ptr<DeviceBuffer> barrier_token_;
  // Events that no operation holds any more are used again.
  std::vector<std::shared_ptr<CudaEvent>> events_;
  int64_t sent_bytes_ = 0;
  // Where NCCL may still write a part that was given up.
  std::vector<std::unique_ptr<ncclComm_t>> unfinished_;
  mutable Mutex mutex_;
  ncclComm_t communicator_ GUARDED_BY(mutex_);  // null after an abort
  absl::Status failure_ GUARDED_BY(mutex_);
};

}  // namespace lasp::worker
