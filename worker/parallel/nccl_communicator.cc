#include "worker/parallel/nccl_communicator.h"

#include <sched.h>

#include <atomic>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/status_macros.h"
#include "worker/device/cuda_status.h"

namespace lasp::worker {
namespace {

absl::Status NcclStatus(ncclResult_t result, absl::string_view what) {
  if (result == ncclSuccess) {
    return absl::OkStatus();
  }
  const char* const last = ncclGetLastError(nullptr);
  return absl::UnavailableError(absl::StrCat("NCCL: ", what, ": ", ncclGetErrorString(result), " (",
                                             last == nullptr ? "" : last, ")"));
}

absl::StatusOr<ncclDataType_t> TypeOf(DType type) {
  switch (type) {
    case DType::kFloat32:
      return ncclFloat32;
    case DType::kFloat64:
      return ncclFloat64;
    case DType::kBFloat16:
      return ncclBfloat16;
    case DType::kInt32:
      return ncclInt32;
  }
  return absl::InvalidArgumentError("a tensor of no type");
}

}  // namespace

// Makes the host wait: for what other ranks are to have done.
class NcclCommunicator::HostEnd : public StreamEnd {
 public:
  using StreamEnd::StreamEnd;

  absl::Status Wait(absl::Duration timeout) override {
    LASP_RETURN_IF_ERROR(failure());
    const absl::Duration deadline = SystemClock().Monotonic() + timeout;
    while (true) {
      const cudaError_t state = cudaEventQuery(event().get());
      if (state == cudaSuccess) {
        return failure();
      }
      if (state != cudaErrorNotReady) {
        return CudaStatus(state, "waiting for a barrier");
      }
      LASP_RETURN_IF_ERROR(failure());
      if (SystemClock().Monotonic() >= deadline) {
        return absl::DeadlineExceededError(
            absl::StrCat("a barrier has not ended within ", absl::FormatDuration(timeout)));
      }
      sched_yield();
    }
  }
};

absl::StatusOr<std::unique_ptr<NcclCommunicator>> NcclCommunicator::Create(
    CudaBackend* backend, ncclComm_t communicator, CollectiveLog* log, absl::string_view name,
    absl::Duration timeout, Interruption interruption) {
  LASP_ASSIGN_OR_RETURN(SideStream stream, SideStream::Create(backend));
  LASP_ASSIGN_OR_RETURN(auto progress, StreamProgress::Create());
  auto made = std::unique_ptr<NcclCommunicator>(
      new NcclCommunicator(communicator, log, name, timeout, std::move(interruption),
                           std::move(stream), std::move(progress)));
  LASP_RETURN_IF_ERROR(
      made->Settle(communicator, ncclInProgress, absl::StrCat("connecting the ", name, " group")));
  LASP_RETURN_IF_ERROR(
      NcclStatus(ncclCommUserRank(communicator, &made->rank_), "asking for the rank"));
  LASP_RETURN_IF_ERROR(
      NcclStatus(ncclCommCount(communicator, &made->size_), "asking for the size"));
  LASP_ASSIGN_OR_RETURN(made->barrier_token_, AllocateDeviceMemory(sizeof(double)));
  log->Follow([progress = made->progress_.get()] {
    const StreamProgress::Numbers numbers = progress->Read();
    return std::pair(numbers.begun, numbers.ended);
  });
  return made;
}

NcclCommunicator::~NcclCommunicator() {
  log_.Follow(nullptr);
  Abort(absl::CancelledError("the communicator is closed"));
  if (closing_.joinable()) {
    closing_.join();
  }
}

absl::Status NcclCommunicator::failure() const {
  MutexLock lock(&mutex_);
  return failure_;
}

absl::Status NcclCommunicator::AsyncStatus() {
  MutexLock lock(&mutex_);
  LASP_RETURN_IF_ERROR(failure_);
  ncclResult_t state = ncclSuccess;
  LASP_RETURN_IF_ERROR(NcclStatus(ncclCommGetAsyncError(communicator_, &state), name_));
  return state == ncclInProgress ? absl::OkStatus() : NcclStatus(state, name_);
}

void NcclCommunicator::Abort(const absl::Status& why) {
  MutexLock lock(&mutex_);
  failure_.Update(why);
  if (communicator_ != nullptr) {
    // Ends kernels that wait for a peer, and then frees memory, which waits for the whole device:
    // also for kernels that only the abort of another communicator ends. What it says helps nobody.
    closing_ = std::thread(
        [closed = std::exchange(communicator_, nullptr)] { (void)ncclCommAbort(closed); });
  }
}

absl::Status NcclCommunicator::CheckWait(absl::Duration deadline, absl::string_view what) const {
  if (SystemClock().Monotonic() >= deadline) {
    return absl::DeadlineExceededError(absl::StrCat(
        "NCCL: ", what, " (", name_, ") has not ended within ", absl::FormatDuration(timeout_)));
  }
  return interruption_();
}

absl::Status NcclCommunicator::Settle(ncclComm_t communicator, ncclResult_t result,
                                      absl::string_view what) {
  const absl::Duration deadline = SystemClock().Monotonic() + timeout_;
  while (result == ncclInProgress) {
    {
      MutexLock lock(&mutex_);
      LASP_RETURN_IF_ERROR(failure_);
      const ncclResult_t asked = ncclCommGetAsyncError(communicator, &result);
      LASP_RETURN_IF_ERROR(NcclStatus(asked, what));
    }
    if (result == ncclInProgress) {
      LASP_RETURN_IF_ERROR(CheckWait(deadline, what));
    }
    sched_yield();
  }
  return NcclStatus(result, what);
}

template <typename End>
Operation NcclCommunicator::EndsHere(absl::Status status) {
  return stream_.EndsHere<End>(std::move(status), [this] { return failure(); }, timeout_);
}

absl::Status NcclCommunicator::Issue(const What& what,
                                     const std::function<ncclResult_t(ncclComm_t)>& work) {
  LASP_RETURN_IF_ERROR(failure());
  LASP_RETURN_IF_ERROR(stream_.FollowBackend());
  // The same numbers as the stream's.
  log_.Issue(what.operation, what.peer, what.bytes);
  LASP_RETURN_IF_ERROR(progress_->Begin(stream_.get()));
  ncclComm_t communicator = nullptr;
  ncclResult_t result = ncclSuccess;
  {
    MutexLock lock(&mutex_);
    LASP_RETURN_IF_ERROR(failure_);
    communicator = communicator_;
    result = work(communicator);
  }
  LASP_RETURN_IF_ERROR(Settle(communicator, result, "issuing an operation"));
  return progress_->End(stream_.get());
}

Operation NcclCommunicator::Enqueue(const What& what,
                                    const std::function<ncclResult_t(ncclComm_t)>& work) {
  return EndsHere<StreamEnd>(Issue(what, work));
}

Operation NcclCommunicator::Send(Tensor data, int peer) {
  sent_bytes_ += data.bytes();
  return Enqueue({kSend, peer, data.bytes()}, [&](ncclComm_t communicator) {
    return ncclSend(data.data, static_cast<size_t>(data.bytes()), ncclUint8, peer, communicator,
                    stream_.get());
  });
}

Operation NcclCommunicator::Receive(Tensor data, int peer) {
  return Enqueue({kReceive, peer, data.bytes()}, [&](ncclComm_t communicator) {
    return ncclRecv(data.data, static_cast<size_t>(data.bytes()), ncclUint8, peer, communicator,
                    stream_.get());
  });
}

Operation NcclCommunicator::Exchange(const std::vector<PeerTransfer>& transfers) {
  int64_t bytes = 0;
  for (const PeerTransfer& transfer : transfers) {
    bytes += transfer.send.bytes();
  }
  sent_bytes_ += bytes;
  return Enqueue({kExchange, kAllPeers, bytes}, [&](ncclComm_t communicator) {
    ncclResult_t result = ncclGroupStart();
    for (const PeerTransfer& one : transfers) {
      if (result == ncclSuccess && !one.send.empty()) {
        result = ncclSend(one.send.data, static_cast<size_t>(one.send.bytes()), ncclUint8, one.peer,
                          communicator, stream_.get());
      }
      if (result == ncclSuccess && !one.receive.empty()) {
        result = ncclRecv(one.receive.data, static_cast<size_t>(one.receive.bytes()), ncclUint8,
                          one.peer, communicator, stream_.get());
      }
    }
    // A group that was begun is to be ended, whatever went wrong in it.
    const ncclResult_t ended = ncclGroupEnd();
    return result == ncclSuccess ? ended : result;
  });
}

Operation NcclCommunicator::Run(std::function<absl::Status()> work) {
  absl::Status status = failure();
  status.Update(stream_.FollowBackend());
  if (status.ok()) {
    status = stream_.Run(work);
  }
  return EndsHere<StreamEnd>(std::move(status));
}

Operation NcclCommunicator::AllReduceSum(Tensor data) {
  if (size_ == 1 || data.count() == 0) {
    return {};
  }
  const absl::StatusOr<ncclDataType_t> type = TypeOf(data.dtype);
  if (!type.ok()) {
    return EndsHere<StreamEnd>(type.status());
  }
  // Each element but a rank's own share goes round the ring twice.
  sent_bytes_ += 2 * data.bytes() * (size_ - 1) / size_;
  return Enqueue({kAllReduce, kAllPeers, data.bytes()}, [&](ncclComm_t communicator) {
    return ncclAllReduce(data.data, data.data, static_cast<size_t>(data.count()), *type, ncclSum,
                         communicator, stream_.get());
  });
}

Operation NcclCommunicator::ReduceScatterSum(Tensor whole, Tensor part) {
  if (part.count() == 0) {
    return {};
  }
  const absl::StatusOr<ncclDataType_t> type = TypeOf(part.dtype);
  if (!type.ok()) {
    return EndsHere<StreamEnd>(type.status());
  }
  sent_bytes_ += part.bytes() * (size_ - 1);
  return Enqueue({kReduceScatter, kAllPeers, whole.bytes()}, [&](ncclComm_t communicator) {
    return ncclReduceScatter(whole.data, part.data, static_cast<size_t>(part.count()), *type,
                             ncclSum, communicator, stream_.get());
  });
}

Operation NcclCommunicator::Broadcast(Tensor data, int root) {
  if (rank_ == root) {
    sent_bytes_ += data.bytes() * (size_ - 1);
  }
  return Enqueue({kBroadcast, root, data.bytes()}, [&](ncclComm_t communicator) {
    return ncclBroadcast(data.data, data.data, static_cast<size_t>(data.bytes()), ncclUint8, root,
                         communicator, stream_.get());
  });
}

Operation NcclCommunicator::AllGather(Tensor part, Tensor whole) {
  sent_bytes_ += part.bytes() * (size_ - 1);
  return Enqueue({kAllGather, kAllPeers, part.bytes()}, [&](ncclComm_t communicator) {
    return ncclAllGather(part.data, whole.data, static_cast<size_t>(part.bytes()), ncclUint8,
                         communicator, stream_.get());
  });
}

Operation NcclCommunicator::Barrier() {
  return EndsHere<HostEnd>(Issue({kBarrier, kAllPeers, 0}, [&](ncclComm_t communicator) {
    return ncclAllReduce(barrier_token_->data(), barrier_token_->data(), 1, ncclFloat64, ncclSum,
                         communicator, stream_.get());
  }));
}

absl::StatusOr<std::unique_ptr<NcclCommunicator>> NcclCommunicator::Split(int color, int key,
                                                                          CollectiveLog* log,
                                                                          absl::string_view name) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  ncclComm_t whole = nullptr;
  // NCCL writes the part there from a thread of its own, when the whole is ready again or after;
  // where that never comes, the place must outlive this call.
  auto part = std::make_unique<ncclComm_t>(nullptr);
  ncclResult_t result = ncclSuccess;
  {
    MutexLock lock(&mutex_);
    LASP_RETURN_IF_ERROR(failure_);
    whole = communicator_;
    result = ncclCommSplit(whole, color, key, part.get(), &config);
  }
  const absl::Duration deadline = SystemClock().Monotonic() + timeout_;
  absl::Status settled = Settle(whole, result, "splitting the world");
  while (settled.ok() && std::atomic_ref(*part).load(std::memory_order_acquire) == nullptr) {
    settled = CheckWait(deadline, "splitting the world");
    sched_yield();
  }
  if (!settled.ok()) {
    unfinished_.push_back(std::move(part));
    return settled;
  }
  return Create(&stream_.backend(), *part, log, name, timeout_, interruption_);
}

}  // namespace lasp::worker
