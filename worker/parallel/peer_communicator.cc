#include "worker/parallel/peer_communicator.h"

#include <algorithm>
#include <cstdlib>

#include "kernels/cuda/rank_sum.h"
#include "proto/rpc/log.h"
#include "proto/rpc/status_macros.h"
#include "worker/device/cuda_status.h"
#include "worker/device/stream_word.h"

namespace lasp::worker {
namespace {

// Words of one kind lie side by side. Memory that is shared is shared in pages of 2 MiB.
constexpr int64_t kPageBytes = int64_t{2} << 20;
constexpr int64_t kWordsBytes = 4096;
// A sum waits for multiprocessors until a kernel ends: few large ones wait less than many.
constexpr int64_t kStagingBytes = int64_t{128} << 20;
// Elements. So that sums go by 16 bytes.
constexpr int64_t kShareAlignment = 64;
static_assert(PeerCommunicator::kMostRanks <= kernels::cuda::RankSum::kMostRanks);

int64_t RoundUp(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

// The elements of one stage, the largest share.
int64_t StageElements(int ranks) {
  return kStagingBytes / int64_t{sizeof(float)} / ranks / kShareAlignment * kShareAlignment;
}

// The share of one rank of `elements`.
struct Share {
  int64_t begin = 0;
  int64_t size = 0;
};

Share ShareOf(int rank, int ranks, int64_t elements) {
  const int64_t most = RoundUp((elements + ranks - 1) / ranks, kShareAlignment);
  const int64_t begin = std::min(elements, rank * most);
  return {.begin = begin, .size = std::min(elements - begin, most)};
}

}  // namespace

absl::StatusOr<std::unique_ptr<PeerCommunicator>> PeerCommunicator::Create(
    CudaBackend* backend, Communicator* others, PeerCommunicatorOptions options) {
  const int size = others->size();
  if (size == 1 || size > kMostRanks) {
    return nullptr;
  }
  LASP_RETURN_IF_ERROR(CheckStreamWords());
  int device = 0;
  LASP_RETURN_IF_CUDA_ERROR(cudaGetDevice(&device), "asking for the GPU");
  LASP_ASSIGN_OR_RETURN(SideStream stream, SideStream::Create(backend));
  LASP_ASSIGN_OR_RETURN(CudaStream releases, CudaStream::Create());
  LASP_ASSIGN_OR_RETURN(auto progress, StreamProgress::Create());
  const int64_t staging = options.sums ? kStagingBytes : 0;
  LASP_ASSIGN_OR_RETURN(auto own, AllocateDeviceMemory(RoundUp(kWordsBytes + staging, kPageBytes)));
  auto made = std::unique_ptr<PeerCommunicator>(
      new PeerCommunicator(others, std::move(options), device, std::move(stream),
                           std::move(releases), std::move(progress), std::move(own)));
  LASP_ASSIGN_OR_RETURN(
      made->peers_, PeerMemory::Exchange(backend, others, made->own_->data(), made->own_->bytes()));
  if (made->peers_ == nullptr) {
    return nullptr;
  }
  LASP_RETURN_IF_ERROR(made->LoadKernels());
  made->options_.log->Follow([progress = made->progress_.get()] {
    const StreamProgress::Numbers numbers = progress->Read();
    return std::pair(numbers.begun, numbers.ended);
  });
  return made;
}

absl::Status PeerCommunicator::LoadKernels() {
  // Of zeros, one by one and by 16 bytes.
  auto* const zeros = static_cast<float*>(own_->data());
  for (const int64_t count : {1, 4}) {
    LASP_RETURN_IF_CUDA_ERROR(
        kernels::cuda::SumOverRanks({.ranks = 1, .count = count, .parts = {zeros}, .sum = zeros},
                                    stream_.get()),
        "loading kernels");
  }
  return CudaStatus(cudaStreamSynchronize(stream_.get()), "loading kernels");
}

PeerCommunicator::~PeerCommunicator() {
  options_.log->Follow(nullptr);
  Abort(absl::CancelledError("the communicator is closed"));
}

absl::Status PeerCommunicator::failure() const {
  MutexLock lock(&mutex_);
  return failure_;
}

void PeerCommunicator::Abort(const absl::Status& why) {
  MutexLock lock(&mutex_);
  failure_.Update(why);
  // Every number that the stream waits for now, or will, counts as come. Nobody is told what the
  // driver says about it: if it refuses, nothing is left to do.
  const uint32_t everything = latest_.load() + (uint32_t{1} << 30);
  (void)cudaSetDevice(device_);
  for (const Word word : {kReady, kArrived, kStaged, kSummed}) {
    for (int peer = 0; peer < size_; ++peer) {
      (void)WriteWord(releases_.get(), WordOf(rank_, word, peer), everything);
    }
  }
}

uint32_t* PeerCommunicator::WordOf(int owner, Word word, int other) const {
  return reinterpret_cast<uint32_t*>(peers_ == nullptr ? static_cast<char*>(own_->data())
                                                       : peers_->at(owner)) +
         static_cast<ptrdiff_t>(word) * kMostRanks + other;
}

float* PeerCommunicator::StageOf(int owner, int sender) const {
  return reinterpret_cast<float*>(peers_->at(owner) + kWordsBytes) + sender * StageElements(size_);
}

absl::Status PeerCommunicator::Tell(int peer, Word word, uint32_t value) {
  return WriteWord(stream_.get(), WordOf(peer, word, rank_), value);
}

absl::Status PeerCommunicator::Await(int peer, Word word, uint32_t value) {
  return WaitForWord(stream_.get(), WordOf(rank_, word, peer), value);
}

absl::Status PeerCommunicator::Copy(void* destination, const void* source, int64_t bytes) {
  return CudaStatus(cudaMemcpyAsync(destination, source, static_cast<size_t>(bytes),
                                    cudaMemcpyDeviceToDevice, stream_.get()),
                    "copying between GPUs");
}

Operation PeerCommunicator::EndsHere(absl::Status status) {
  return stream_.EndsHere<StreamEnd>(
      std::move(status), [this] { return failure(); }, options_.timeout);
}

absl::Status PeerCommunicator::Follow() {
  LASP_RETURN_IF_ERROR(failure());
  return stream_.FollowBackend();
}

absl::Status PeerCommunicator::Issue(const char* operation, int peer, int64_t bytes,
                                     const std::function<absl::Status()>& work) {
  LASP_RETURN_IF_ERROR(Follow());
  // The same numbers as the stream's.
  options_.log->Issue(operation, peer, bytes);
  LASP_RETURN_IF_ERROR(progress_->Begin(stream_.get()));
  LASP_RETURN_IF_ERROR(work());
  return progress_->End(stream_.get());
}

Operation PeerCommunicator::Delegate(const std::function<Operation()>& issue) {
  return Run([&] { return issue().Wait(); });
}

uint32_t PeerCommunicator::Next(uint32_t* number) {
  ++*number;
  latest_ = std::max(latest_.load(), *number);
  return *number;
}

Operation PeerCommunicator::Send(Tensor data, int peer) {
  return Delegate([&] { return others_.Send(data, peer); });
}

Operation PeerCommunicator::Receive(Tensor data, int peer) {
  return Delegate([&] { return others_.Receive(data, peer); });
}

Operation PeerCommunicator::SendInto(Tensor data, int peer, Tensor there) {
  if (!IsRegistered(there)) {
    return Send(data, peer);
  }
  sent_bytes_ += data.bytes();
  return EndsHere(Issue(kSend, peer, data.bytes(), [&]() -> absl::Status {
    const uint32_t number = Next(&sent_[static_cast<size_t>(peer)]);
    LASP_RETURN_IF_ERROR(Await(peer, kReady, number));
    LASP_RETURN_IF_ERROR(
        Copy(registered_peers_->at(peer) + OffsetOf(there), data.data, data.bytes()));
    return Tell(peer, kArrived, number);
  }));
}

Operation PeerCommunicator::ReceiveInto(Tensor here, int peer) {
  if (!IsRegistered(here)) {
    return Receive(here, peer);
  }
  return EndsHere(Issue(kReceive, peer, here.bytes(), [&]() -> absl::Status {
    const uint32_t number = Next(&received_[static_cast<size_t>(peer)]);
    LASP_RETURN_IF_ERROR(Tell(peer, kReady, number));
    return Await(peer, kArrived, number);
  }));
}

absl::Status PeerCommunicator::CopyAll(const std::vector<PeerTransfer>& transfers) {
  for (const PeerTransfer& one : transfers) {
    if (!one.receive.empty()) {
      LASP_RETURN_IF_ERROR(Tell(one.peer, kReady, Next(&received_[static_cast<size_t>(one.peer)])));
    }
  }
  for (const PeerTransfer& one : transfers) {
    if (!one.send.empty()) {
      const uint32_t number = Next(&sent_[static_cast<size_t>(one.peer)]);
      LASP_RETURN_IF_ERROR(Await(one.peer, kReady, number));
      LASP_RETURN_IF_ERROR(Copy(registered_peers_->at(one.peer) + OffsetOf(one.there),
                                one.send.data, one.send.bytes()));
      LASP_RETURN_IF_ERROR(Tell(one.peer, kArrived, number));
    }
  }
  for (const PeerTransfer& one : transfers) {
    if (!one.receive.empty()) {
      // The numbers only grow, so that the last from a peer stands for those before it.
      LASP_RETURN_IF_ERROR(Await(one.peer, kArrived, received_[static_cast<size_t>(one.peer)]));
    }
  }
  return absl::OkStatus();
}

Operation PeerCommunicator::Exchange(const std::vector<PeerTransfer>& transfers) {
  int64_t bytes = 0;
  bool reached = true;
  for (const PeerTransfer& one : transfers) {
    bytes += one.send.bytes();
    reached = reached && (one.send.empty() || IsRegistered(one.there)) &&
              (one.receive.empty() || IsRegistered(one.receive));
  }
  if (!reached) {
    return Delegate([&] { return others_.Exchange(transfers); });
  }
  sent_bytes_ += bytes;
  return EndsHere(
      Issue(kExchange, kAllPeers, bytes, [&]() -> absl::Status { return CopyAll(transfers); }));
}

Operation PeerCommunicator::Run(std::function<absl::Status()> work) {
  absl::Status status = Follow();
  if (status.ok()) {
    status = stream_.Run(work);
  }
  return EndsHere(std::move(status));
}

absl::Status PeerCommunicator::Register(Tensor memory) {
  // Every rank has done with what was registered before when the exchange ends.
  LASP_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream_.get()), "registering memory");
  registered_ = {};
  LASP_ASSIGN_OR_RETURN(registered_peers_, PeerMemory::Exchange(&stream_.backend(), &others_,
                                                                memory.data, memory.bytes()));
  if (registered_peers_ == nullptr) {
    LASP_LOG(kWarning, "memory is not reached by copy engines: NCCL moves it",
             {{"group", options_.name}, {"bytes", memory.bytes()}});
  } else {
    registered_ = memory;
  }
  return absl::OkStatus();
}

bool PeerCommunicator::IsRegistered(Tensor data) const {
  const auto* const begin = static_cast<const char*>(data.data);
  const auto* const memory = static_cast<const char*>(registered_.data);
  return memory != nullptr && data.contiguous() && begin >= memory &&
         begin + data.bytes() <= memory + registered_.bytes();
}

int64_t PeerCommunicator::OffsetOf(Tensor data) const {
  return static_cast<const char*>(data.data) - static_cast<const char*>(registered_.data);
}

absl::Status PeerCommunicator::Reduce(int64_t offset, int64_t elements) {
  const uint32_t number = Next(&reductions_);
  const auto data_of = [&](int rank) {
    return reinterpret_cast<float*>(registered_peers_->at(rank) + offset);
  };
  const auto copy = [&](float* destination, const float* source, int64_t count) {
    return count == 0 ? absl::OkStatus()
                      : Copy(destination, source, count * int64_t{sizeof(float)});
  };
  // Ranks begin with different peers, so that no GPU serves all at once.
  const auto peer_after = [&](int turn) { return (rank_ + turn) % size_; };
  // The stages are free: the sum before this one came from there, and was awaited.
  for (int turn = 1; turn < size_; ++turn) {
    const int peer = peer_after(turn);
    const Share share = ShareOf(peer, size_, elements);
    LASP_RETURN_IF_ERROR(copy(StageOf(peer, rank_), data_of(rank_) + share.begin, share.size));
    LASP_RETURN_IF_ERROR(Tell(peer, kStaged, number));
  }
  const Share share = ShareOf(rank_, size_, elements);
  float* const own = data_of(rank_) + share.begin;
  kernels::cuda::RankSum sum{.ranks = size_, .count = share.size, .parts = {}, .sum = own};
  for (int rank = 0; rank < size_; ++rank) {
    if (rank != rank_) {
      LASP_RETURN_IF_ERROR(Await(rank, kStaged, number));
    }
    sum.parts[rank] = rank == rank_ ? own : StageOf(rank_, rank);
  }
  LASP_RETURN_IF_CUDA_ERROR(kernels::cuda::SumOverRanks(sum, stream_.get()), "a sum over ranks");
  // Every other rank has given its share away by now, and awaits this one.
  for (int turn = 1; turn < size_; ++turn) {
    const int peer = peer_after(turn);
    LASP_RETURN_IF_ERROR(copy(data_of(peer) + share.begin, own, share.size));
    LASP_RETURN_IF_ERROR(Tell(peer, kSummed, number));
  }
  for (int turn = 1; turn < size_; ++turn) {
    LASP_RETURN_IF_ERROR(Await(peer_after(turn), kSummed, number));
  }
  return absl::OkStatus();
}

Operation PeerCommunicator::AllReduceSum(Tensor data) {
  if (data.count() == 0) {
    return {};
  }
  if (!options_.sums || data.dtype != DType::kFloat32 || !IsRegistered(data)) {
    return Delegate([&] { return others_.AllReduceSum(data); });
  }
  sent_bytes_ += 2 * data.bytes() * (size_ - 1) / size_;
  const int64_t begin = OffsetOf(data);
  const int64_t most = size_ * StageElements(size_);
  return EndsHere(Issue(kAllReduce, kAllPeers, data.bytes(), [&]() -> absl::Status {
    for (int64_t done = 0; done < data.count(); done += most) {
      LASP_RETURN_IF_ERROR(
          Reduce(begin + done * int64_t{sizeof(float)}, std::min(most, data.count() - done)));
    }
    return absl::OkStatus();
  }));
}

absl::Status PeerCommunicator::ReduceParts(const float* whole, int64_t stride, int64_t elements,
                                           float* sum) {
  const uint32_t number = Next(&reductions_);
  const auto peer_after = [&](int turn) { return (rank_ + turn) % size_; };
  // The stages are free, as in Reduce.
  for (int turn = 1; turn < size_; ++turn) {
    const int peer = peer_after(turn);
    LASP_RETURN_IF_ERROR(
        Copy(StageOf(peer, rank_), whole + peer * stride, elements * int64_t{sizeof(float)}));
    LASP_RETURN_IF_ERROR(Tell(peer, kStaged, number));
  }
  kernels::cuda::RankSum parts{.ranks = size_, .count = elements, .parts = {}, .sum = sum};
  for (int rank = 0; rank < size_; ++rank) {
    if (rank != rank_) {
      LASP_RETURN_IF_ERROR(Await(rank, kStaged, number));
    }
    parts.parts[rank] = rank == rank_ ? whole + rank_ * stride : StageOf(rank_, rank);
  }
  LASP_RETURN_IF_CUDA_ERROR(kernels::cuda::SumOverRanks(parts, stream_.get()), "a sum over ranks");
  // What was staged here has been used.
  for (int turn = 1; turn < size_; ++turn) {
    LASP_RETURN_IF_ERROR(Tell(peer_after(turn), kSummed, number));
  }
  for (int turn = 1; turn < size_; ++turn) {
    LASP_RETURN_IF_ERROR(Await(peer_after(turn), kSummed, number));
  }
  return absl::OkStatus();
}

Operation PeerCommunicator::ReduceScatterSum(Tensor whole, Tensor part) {
  if (!options_.sums || whole.dtype != DType::kFloat32 || part.count() == 0) {
    return Delegate([&] { return others_.ReduceScatterSum(whole, part); });
  }
  sent_bytes_ += part.bytes() * (size_ - 1);
  return EndsHere(Issue(kReduceScatter, kAllPeers, whole.bytes(), [&]() -> absl::Status {
    const int64_t most = StageElements(size_);
    for (int64_t done = 0; done < part.count(); done += most) {
      LASP_RETURN_IF_ERROR(ReduceParts(static_cast<const float*>(whole.data) + done, part.count(),
                                       std::min(most, part.count() - done),
                                       static_cast<float*>(part.data) + done));
    }
    return absl::OkStatus();
  }));
}

Operation PeerCommunicator::Broadcast(Tensor data, int root) {
  return Delegate([&] { return others_.Broadcast(data, root); });
}

Operation PeerCommunicator::AllGather(Tensor part, Tensor whole) {
  if (!IsRegistered(whole)) {
    return Delegate([&] { return others_.AllGather(part, whole); });
  }
  const int64_t bytes = part.bytes();
  const Tensor parts = whole.Reshape(size_, part.count());
  const Tensor mine = parts.Rows(rank_, 1);
  std::vector<PeerTransfer> transfers;
  transfers.reserve(static_cast<size_t>(size_));
  // Ranks begin with different peers, so that no GPU serves all at once.
  for (int turn = 1; turn < size_; ++turn) {
    const int peer = (rank_ + turn) % size_;
    transfers.push_back(
        {.peer = peer, .send = part, .there = mine, .receive = parts.Rows(peer, 1)});
  }
  sent_bytes_ += bytes * (size_ - 1);
  return EndsHere(Issue(kAllGather, kAllPeers, bytes, [&]() -> absl::Status {
    if (mine.data != part.data) {
      LASP_RETURN_IF_ERROR(Copy(mine.data, part.data, bytes));
    }
    return CopyAll(transfers);
  }));
}

Operation PeerCommunicator::Barrier() {
  // The host waits for it, not the stream.
  Operation barrier;
  absl::Status status = Follow();
  if (status.ok()) {
    status = stream_.Run([&] {
      barrier = others_.Barrier();
      return absl::OkStatus();
    });
  }
  return status.ok() ? barrier : EndsHere(std::move(status));
}

}  // namespace lasp::worker
