// A communicator over NCCL: operations go to a stream of their own, beside the computation, and
// return at once.
#pragma once

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "proto/rpc/mutex.h"
#include "worker/device/cuda_backend.h"
#include "worker/device/cuda_stream.h"
#include "worker/parallel/collective_log.h"
#include "worker/parallel/communicator.h"
#include "worker/parallel/side_stream.h"
#include "worker/parallel/stream_progress.h"
#include "worker/parallel/watched_group.h"

namespace lasp::worker {

// Issued to by the thread that issues to `backend`; watched by another. An operation starts after
// what was issued to the backend's stream before it; Wait makes that stream wait for the operation,
// and the host only for a barrier.
class NcclCommunicator final : public Communicator, public WatchedGroup {
 public:
  // Asked while the host waits for NCCL: not OK ends the wait with it.
  using Interruption = std::function<absl::Status()>;

  // Takes over `communicator`, a non-blocking one, and waits until it is ready. `backend` and
  // `log`, which is told of every operation, must outlive this. No wait of the host lasts longer
  // than `timeout`, or goes on after `interruption`.
  static absl::StatusOr<std::unique_ptr<NcclCommunicator>> Create(
      CudaBackend* backend, ncclComm_t communicator, CollectiveLog* log, absl::string_view name,
      absl::Duration timeout, Interruption interruption);
  // Aborts what is under way, and waits until NCCL has freed what it held.
  ~NcclCommunicator() override;
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  int rank() const override { return rank_; }

  int size() const override { return size_; }

  Operation Send(Tensor data, int peer) override;
  Operation Receive(Tensor data, int peer) override;
  Operation Exchange(const std::vector<PeerTransfer>& transfers) override;
  // Issues `work` to the communicator's stream, on the calling thread.
  Operation Run(std::function<absl::Status()> work) override;
  // In the order of NCCL's algorithm, which depends on the size and the ranks alone.
  Operation AllReduceSum(Tensor data) override;
  Operation ReduceScatterSum(Tensor whole, Tensor part) override;
  Operation Broadcast(Tensor data, int root) override;
  Operation AllGather(Tensor part, Tensor whole) override;
  Operation Barrier() override;

  CommunicatorCounters counters() const override { return {sent_bytes_}; }

  // A part of this one's ranks: those that give the same `color`, in the order of `key`. Every rank
  // calls it.
  absl::StatusOr<std::unique_ptr<NcclCommunicator>> Split(int color, int key, CollectiveLog* log,
                                                          absl::string_view name);

  const std::string& name() const override { return name_; }

  // Asks NCCL too.
  absl::Status AsyncStatus() override;

  StreamProgress::Numbers progress() const override { return progress_->Read(); }

  void Abort(const absl::Status& why) override;

 private:
  class HostEnd;

  NcclCommunicator(ncclComm_t communicator, CollectiveLog* log, absl::string_view name,
                   absl::Duration timeout, Interruption interruption, SideStream stream,
                   std::unique_ptr<StreamProgress> progress)
      : name_(name),
        log_(*log),
        timeout_(timeout),
        interruption_(std::move(interruption)),
        stream_(std::move(stream)),
        progress_(std::move(progress)),
        communicator_(communicator) {}

  struct What {
    const char* operation;
    int peer;
    int64_t bytes;
  };

  // Issues `work` between marks of progress, after what the backend's stream holds so far.
  absl::Status Issue(const What& what, const std::function<ncclResult_t(ncclComm_t)>& work);
  Operation Enqueue(const What& what, const std::function<ncclResult_t(ncclComm_t)>& work);
  template <typename End>
  Operation EndsHere(absl::Status status);
  // Why the host should wait for NCCL no longer, if so.
  absl::Status CheckWait(absl::Duration deadline, absl::string_view what) const;
  // Polls while NCCL says that it is in progress.
  absl::Status Settle(ncclComm_t communicator, ncclResult_t result, absl::string_view what);
  absl::Status failure() const;

  const std::string name_;
  CollectiveLog& log_;
  const absl::Duration timeout_;
  const Interruption interruption_;
  int rank_ = 0;
  int size_ = 0;
  SideStream stream_;
  const std::unique_ptr<StreamProgress> progress_;
  std::unique_ptr<DeviceBuffer> barrier_token_;
  int64_t sent_bytes_ = 0;
  // Where NCCL may still write a part that was given up.
  std::vector<std::unique_ptr<ncclComm_t>> unfinished_;
  mutable Mutex mutex_;
  ncclComm_t communicator_ GUARDED_BY(mutex_);  // null after an abort
  absl::Status failure_ GUARDED_BY(mutex_);
  std::thread closing_;  // started by the one abort that takes `communicator_`
};

}  // namespace lasp::worker
