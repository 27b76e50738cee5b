#include "worker/parallel/gloo_communicator.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/status_macros.h"

namespace lasp::worker {
namespace {

// Below this many elements a rank, one round in which every rank sends all it has beats two rounds.
constexpr int64_t kSmallPiece = 256;

absl::Status Closed() { return absl::CancelledError("the communicator is closed"); }

// Elements [begin, begin + size) of a contiguous tensor.
Tensor Elements(Tensor data, int64_t begin, int64_t size) {
  return data.Reshape(1, data.count()).Columns(begin, size).Reshape(1, size);
}

}  // namespace

// Tells the log that the training waits.
class GlooCommunicator::LoggedCompletion : public HostCompletion {
 public:
  explicit LoggedCompletion(CollectiveLog* log) : log_(log) {}

  absl::Status Wait(absl::Duration timeout) override {
    if (log_ == nullptr) {
      return HostCompletion::Wait(timeout);
    }
    log_->EnterWait();
    absl::Status status = HostCompletion::Wait(timeout);
    log_->LeaveWait();
    return status;
  }

 private:
  CollectiveLog* const log_;
};

class GlooCommunicator::Transfers {
 public:
  explicit Transfers(GlooCommunicator* owner) : owner_(owner) {}

  ~Transfers() {
    MutexLock lock(&owner_->mutex_);
    owner_->transfers_.clear();
  }

  Transfers(const Transfers&) = delete;
  Transfers& operator=(const Transfers&) = delete;

  absl::Status Send(const void* data, int64_t bytes, int peer) {
    if (bytes == 0) {
      return absl::OkStatus();
    }
    LASP_ASSIGN_OR_RETURN(auto transfer, owner_->mesh_->Send(owner_->options_.members[peer],
                                                             owner_->options_.slot, data, bytes));
    owner_->sent_bytes_.fetch_add(bytes, std::memory_order_relaxed);
    Keep(std::move(transfer), peer);
    return absl::OkStatus();
  }

  absl::Status Receive(void* data, int64_t bytes, int peer) {
    if (bytes == 0) {
      return absl::OkStatus();
    }
    LASP_ASSIGN_OR_RETURN(
        auto transfer,
        owner_->mesh_->Receive(owner_->options_.members[peer], owner_->options_.slot, data, bytes));
    Keep(std::move(transfer), peer);
    return absl::OkStatus();
  }

  absl::Status WaitAll() {
    for (const auto& [transfer, peer] : transfers_) {
      if (owner_->options_.log != nullptr) {
        owner_->options_.log->WaitFor(peer);
      }
      LASP_RETURN_IF_ERROR(transfer->Wait(owner_->options_.timeout));
    }
    return absl::OkStatus();
  }

 private:
  void Keep(std::unique_ptr<Transfer> transfer, int peer) {
    MutexLock lock(&owner_->mutex_);
    if (owner_->stopping_) {
      transfer->Cancel();
    }
    owner_->transfers_.push_back(transfer.get());
    transfers_.emplace_back(std::move(transfer), peer);
  }

  GlooCommunicator* const owner_;
  // With whom.
  std::vector<std::pair<std::unique_ptr<Transfer>, int>> transfers_;
};

GlooCommunicator::GlooCommunicator(GlooMesh* mesh, Backend* backend, Options options)
    : mesh_(mesh), backend_(backend), options_(std::move(options)) {
  const auto place = std::find(options_.members.begin(), options_.members.end(), mesh->rank());
  rank_ = static_cast<int>(place - options_.members.begin());
  thread_ = std::thread([this] { RunTasks(); });
}

GlooCommunicator::~GlooCommunicator() {
  Abort();
  thread_.join();
}

void GlooCommunicator::Abort() {
  MutexLock lock(&mutex_);
  stopping_ = true;
  for (Transfer* transfer : transfers_) {
    transfer->Cancel();
  }
  changed_.NotifyAll();
}

void GlooCommunicator::RunTasks() {
  backend_->EnterHelperThread();
  absl::Status failure;
  while (true) {
    Task task;
    bool stopping = false;
    {
      MutexLock lock(&mutex_);
      while (tasks_.empty() && !stopping_) {
        changed_.Wait(&mutex_);
      }
      if (tasks_.empty()) {
        return;
      }
      stopping = stopping_;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    if (failure.ok() && stopping) {
      failure = Closed();
    }
    if (failure.ok()) {
      if (options_.log != nullptr) {
        options_.log->Begin(task.number);
      }
      failure = task.work();
      if (options_.log != nullptr && failure.ok()) {
        options_.log->End(task.number);
      }
    }
    task.completion->Set(failure);
  }
}

Operation GlooCommunicator::Run(std::function<absl::Status()> work) {
  return Enqueue(kLocalWork, kAllPeers, 0, std::move(work));
}

Operation GlooCommunicator::Enqueue(const char* operation, int peer, int64_t bytes,
                                    std::function<absl::Status()> work) {
  auto completion = std::make_shared<LoggedCompletion>(options_.log);
  const uint32_t number = options_.log == nullptr ? 0 : options_.log->Issue(operation, peer, bytes);
  bool stopping = false;
  {
    MutexLock lock(&mutex_);
    stopping = stopping_;
    if (!stopping) {
      tasks_.push_back({number, std::move(work), completion});
      changed_.Notify();
    }
  }
  if (stopping) {
    completion->Set(Closed());
  }
  return Operation(std::move(completion), options_.timeout + absl::Seconds(5));
}

Operation GlooCommunicator::Send(Tensor data, int peer) {
  return Enqueue(kSend, peer, data.bytes(), [this, data, peer]() -> absl::Status {
    Transfers transfers(this);
    LASP_RETURN_IF_ERROR(transfers.Send(data.data, data.bytes(), peer));
    return transfers.WaitAll();
  });
}

Operation GlooCommunicator::Receive(Tensor data, int peer) {
  return Enqueue(kReceive, peer, data.bytes(), [this, data, peer]() -> absl::Status {
    Transfers transfers(this);
    LASP_RETURN_IF_ERROR(transfers.Receive(data.data, data.bytes(), peer));
    return transfers.WaitAll();
  });
}

Operation GlooCommunicator::Exchange(const std::vector<PeerTransfer>& transfers) {
  int64_t bytes = 0;
  for (const PeerTransfer& transfer : transfers) {
    bytes += transfer.send.bytes();
  }
  return Enqueue(kExchange, kAllPeers, bytes, [this, transfers] { return DoExchange(transfers); });
}

Operation GlooCommunicator::AllReduceSum(Tensor data) {
  return Enqueue(kAllReduce, kAllPeers, data.bytes(),
                 [this, data] { return DoAllReduceSum(data); });
}

Operation GlooCommunicator::ReduceScatterSum(Tensor whole, Tensor part) {
  return Enqueue(kReduceScatter, kAllPeers, whole.bytes(), [this, whole, part] {
    return ReduceScatter(
        [&](int rank) { return Elements(whole, rank * part.count(), part.count()); }, part);
  });
}

Operation GlooCommunicator::Broadcast(Tensor data, int root) {
  return Enqueue(kBroadcast, root, data.bytes(),
                 [this, data, root] { return DoBroadcast(data, root); });
}

Operation GlooCommunicator::AllGather(Tensor part, Tensor whole) {
  return Enqueue(kAllGather, kAllPeers, part.bytes(),
                 [this, part, whole] { return DoAllGather(part, whole); });
}

Operation GlooCommunicator::Barrier() {
  return Enqueue(kBarrier, kAllPeers, 0, [this] {
    barrier_token_ = 0;
    return DoAllReduceSum(Tensor{&barrier_token_, DType::kFloat64, 1, 1, 1});
  });
}

absl::Status GlooCommunicator::DoAllReduceSum(Tensor data) {
  if (size() == 1 || data.count() == 0) {
    return absl::OkStatus();
  }
  return data.count() < kSmallPiece * size() ? ReduceWhole(data) : ReduceByPieces(data);
}

absl::Status GlooCommunicator::ReduceWhole(Tensor data) {
  // Own values too go through the scratch, so that the sum starts with rank 0's on every rank.
  char* const scratch = Scratch(size() * data.bytes());
  std::memcpy(scratch + rank_ * data.bytes(), data.data, static_cast<size_t>(data.bytes()));
  {
    Transfers transfers(this);
    for (int peer = 0; peer < size(); ++peer) {
      if (peer != rank_) {
        LASP_RETURN_IF_ERROR(transfers.Receive(scratch + peer * data.bytes(), data.bytes(), peer));
      }
    }
    for (int peer = 0; peer < size(); ++peer) {
      if (peer != rank_) {
        LASP_RETURN_IF_ERROR(transfers.Send(data.data, data.bytes(), peer));
      }
    }
    LASP_RETURN_IF_ERROR(transfers.WaitAll());
  }
  std::memcpy(data.data, scratch, static_cast<size_t>(data.bytes()));
  for (int peer = 1; peer < size(); ++peer) {
    Tensor addend = data;
    addend.data = scratch + peer * data.bytes();
    backend_->Axpy(1, addend, data);
  }
  return absl::OkStatus();
}

absl::Status GlooCommunicator::ReduceScatter(const std::function<Tensor(int rank)>& piece,
                                             Tensor sum) {
  const Tensor mine = piece(rank_);
  const auto bytes = static_cast<size_t>(mine.bytes());
  char* const scratch = Scratch(size() * mine.bytes());
  const auto of_rank = [&](int rank) {
    Tensor tensor = mine;
    tensor.data = scratch + rank * mine.bytes();
    return tensor;
  };
  // Own values too go through the scratch: `sum` may be where they lie.
  std::memcpy(of_rank(rank_).data, mine.data, bytes);
  {
    Transfers transfers(this);
    for (int step = 1; step < size(); ++step) {
      const int peer = (rank_ + size() - step) % size();
      LASP_RETURN_IF_ERROR(transfers.Receive(of_rank(peer).data, mine.bytes(), peer));
    }
    for (int step = 1; step < size(); ++step) {
      const int peer = (rank_ + step) % size();
      LASP_RETURN_IF_ERROR(transfers.Send(piece(peer).data, piece(peer).bytes(), peer));
    }
    LASP_RETURN_IF_ERROR(transfers.WaitAll());
  }
  std::memcpy(sum.data, of_rank(0).data, bytes);
  for (int rank = 1; rank < size(); ++rank) {
    backend_->Axpy(1, of_rank(rank), sum);
  }
  return absl::OkStatus();
}

// Reduce-scatter, then all-gather, each in one round of direct transfers: 2 (n - 1) / n of the data
// cross each rank's link, and rank r's piece is summed in rank order by rank r alone.
absl::Status GlooCommunicator::ReduceByPieces(Tensor data) {
  const auto piece = [&](int rank) {
    const int64_t begin = data.count() * rank / size();
    return Elements(data, begin, data.count() * (rank + 1) / size() - begin);
  };
  const Tensor mine = piece(rank_);
  LASP_RETURN_IF_ERROR(ReduceScatter(piece, mine));
  Transfers transfers(this);
  for (int step = 1; step < size(); ++step) {
    const int peer = (rank_ + size() - step) % size();
    LASP_RETURN_IF_ERROR(transfers.Receive(piece(peer).data, piece(peer).bytes(), peer));
  }
  for (int step = 1; step < size(); ++step) {
    LASP_RETURN_IF_ERROR(transfers.Send(mine.data, mine.bytes(), (rank_ + step) % size()));
  }
  return transfers.WaitAll();
}

absl::Status GlooCommunicator::DoAllGather(Tensor part, Tensor whole) {
  const auto place = [&](int rank) { return Elements(whole, rank * part.count(), part.count()); };
  if (part.empty()) {
    return absl::OkStatus();
  }
  if (char* const mine = static_cast<char*>(whole.data) + rank_ * part.bytes(); mine != part.data) {
    std::memcpy(mine, part.data, static_cast<size_t>(part.bytes()));
  }
  Transfers transfers(this);
  for (int peer = 0; peer < size(); ++peer) {
    if (peer != rank_) {
      LASP_RETURN_IF_ERROR(transfers.Receive(place(peer).data, part.bytes(), peer));
    }
  }
  for (int peer = 0; peer < size(); ++peer) {
    if (peer != rank_) {
      LASP_RETURN_IF_ERROR(transfers.Send(part.data, part.bytes(), peer));
    }
  }
  return transfers.WaitAll();
}

absl::Status GlooCommunicator::DoExchange(const std::vector<PeerTransfer>& wanted) {
  Transfers transfers(this);
  for (const PeerTransfer& one : wanted) {
    LASP_RETURN_IF_ERROR(transfers.Receive(one.receive.data, one.receive.bytes(), one.peer));
  }
  for (const PeerTransfer& one : wanted) {
    LASP_RETURN_IF_ERROR(transfers.Send(one.send.data, one.send.bytes(), one.peer));
  }
  return transfers.WaitAll();
}

absl::Status GlooCommunicator::DoBroadcast(Tensor data, int root) {
  Transfers transfers(this);
  if (rank_ != root) {
    LASP_RETURN_IF_ERROR(transfers.Receive(data.data, data.bytes(), root));
    return transfers.WaitAll();
  }
  for (int peer = 0; peer < size(); ++peer) {
    if (peer != root) {
      LASP_RETURN_IF_ERROR(transfers.Send(data.data, data.bytes(), peer));
    }
  }
  return transfers.WaitAll();
}

char* GlooCommunicator::Scratch(int64_t bytes) {
  if (static_cast<int64_t>(scratch_.size()) < bytes) {
    scratch_.resize(static_cast<size_t>(bytes));
  }
  return scratch_.data();
}

CommunicatorCounters GlooCommunicator::counters() const {
  return {sent_bytes_.load(std::memory_order_relaxed)};
}

}  // namespace lasp::worker
