// A communicator among ranks of one host by copy engines: data goes from GPU to GPU without a
// kernel, so that neither waits for the other's multiprocessors, and words in device memory say
// what has come. Only a sum takes a kernel. What it does not do itself it leaves to NCCL.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/rpc/mutex.h"
#include "worker/device/cuda_backend.h"
#include "worker/device/cuda_stream.h"
#include "worker/parallel/collective_log.h"
#include "worker/parallel/communicator.h"
#include "worker/parallel/peer_memory.h"
#include "worker/parallel/side_stream.h"
#include "worker/parallel/stream_progress.h"
#include "worker/parallel/watched_group.h"

namespace lasp::worker {

struct PeerCommunicatorOptions {
  bool sums = false;  // takes 128 MiB; otherwise they are left to NCCL
  std::string name;
  absl::Duration timeout;
  CollectiveLog* log = nullptr;  // told of every operation; must outlive the communicator
};

// Issued to by the thread that issues to `backend`; watched by another.
class PeerCommunicator final : public Communicator, public WatchedGroup {
 public:
  static constexpr int kMostRanks = 16;

  // Every rank of `others` calls it; null where they cannot reach each other's memory. `others`
  // must outlive this, and from here on be used through this alone.
  static absl::StatusOr<std::unique_ptr<PeerCommunicator>> Create(CudaBackend* backend,
                                                                  Communicator* others,
                                                                  PeerCommunicatorOptions options);
  // Aborts what is under way.
  ~PeerCommunicator() override;
  PeerCommunicator(const PeerCommunicator&) = delete;
  PeerCommunicator& operator=(const PeerCommunicator&) = delete;

  int rank() const override { return rank_; }

  int size() const override { return size_; }

  Operation Send(Tensor data, int peer) override;
  Operation Receive(Tensor data, int peer) override;
  // Into registered memory, once the receiver has come to its receive. A copy within a GPU would
  // take a kernel, and wait for multiprocessors.
  Operation SendInto(Tensor data, int peer, Tensor there) override;
  Operation ReceiveInto(Tensor here, int peer) override;
  // By copy engines where all of it goes into registered memory.
  Operation Exchange(const std::vector<PeerTransfer>& transfers) override;
  Operation Run(std::function<absl::Status()> work) override;
  // Of registered memory, fp32: each rank gets its share of every other rank's, adds them up in the
  // order of the ranks, and puts the sum where the others have theirs. 2 (P - 1) / P of the data
  // cross each link, as in a ring.
  Operation AllReduceSum(Tensor data) override;
  // Of fp32: as the first half of a sum. (P - 1) / P of the data cross each link.
  Operation ReduceScatterSum(Tensor whole, Tensor part) override;
  Operation Broadcast(Tensor data, int root) override;
  // As for Exchange.
  Operation AllGather(Tensor part, Tensor whole) override;
  Operation Barrier() override;
  absl::Status Register(Tensor memory) override;

  CommunicatorCounters counters() const override {
    return {sent_bytes_ + others_.counters().sent_bytes};
  }

  // Of the sent bytes those that a copy engine has moved.
  int64_t copied_bytes() const { return sent_bytes_; }

  const std::string& name() const override { return options_.name; }

  absl::Status AsyncStatus() override { return failure(); }

  StreamProgress::Numbers progress() const override { return progress_->Read(); }

  void Abort(const absl::Status& why) override;

 private:
  // Where words lie in a rank's memory: one for each kind and peer, written by the peer, numbers
  // that only grow (and wrap round).
  enum Word { kReady, kArrived, kStaged, kSummed };

  // What one rank has been through with each other.
  using Numbers = std::array<uint32_t, kMostRanks>;

  PeerCommunicator(Communicator* others, PeerCommunicatorOptions options, int device,
                   SideStream stream, CudaStream releases, std::unique_ptr<StreamProgress> progress,
                   std::unique_ptr<DeviceBuffer> own)
      : others_(*others),
        options_(std::move(options)),
        rank_(others->rank()),
        size_(others->size()),
        device_(device),
        stream_(std::move(stream)),
        releases_(std::move(releases)),
        progress_(std::move(progress)),
        own_(std::move(own)) {}

  // In the memory of rank `owner`, about rank `other`.
  uint32_t* WordOf(int owner, Word word, int other) const;
  // Where a rank's share of what `sender` has awaits its sum.
  float* StageOf(int owner, int sender) const;
  // Tells rank `peer`, or waits for what it tells.
  absl::Status Tell(int peer, Word word, uint32_t value);
  absl::Status Await(int peer, Word word, uint32_t value);
  absl::Status Copy(void* destination, const void* source, int64_t bytes);

  // A kernel that is loaded for its first use may wait for the whole device, and so for another
  // rank.
  absl::Status LoadKernels();
  // Counts on, and remembers the largest number that anything waits for.
  uint32_t Next(uint32_t* number);
  // All go into registered memory. The peers are told first that this rank is ready, so that no two
  // ranks wait for each other.
  absl::Status CopyAll(const std::vector<PeerTransfer>& transfers);
  // Of the registered memory: `elements` of fp32 from byte `offset` on.
  absl::Status Reduce(int64_t offset, int64_t elements);
  // From the parts of `whole`, each `stride` apart, to `sum`: `elements` of fp32, no more than a
  // stage holds.
  absl::Status ReduceParts(const float* whole, int64_t stride, int64_t elements, float* sum);

  bool IsRegistered(Tensor data) const;
  // Where that lies in the registered memory, in bytes.
  int64_t OffsetOf(Tensor data) const;
  // What is issued next starts after what the backend's stream holds so far; not after a failure.
  absl::Status Follow();
  // Issues `work` between marks of progress.
  absl::Status Issue(const char* operation, int peer, int64_t bytes,
                     const std::function<absl::Status()>& work);
  // Has the other communicator do it in its turn.
  Operation Delegate(const std::function<Operation()>& issue);
  Operation EndsHere(absl::Status status);
  absl::Status failure() const;

  Communicator& others_;
  const PeerCommunicatorOptions options_;
  const int rank_;
  const int size_;
  const int device_;
  SideStream stream_;
  // For an abort: lets go what the other stream waits for.
  const CudaStream releases_;
  const std::unique_ptr<StreamProgress> progress_;
  // This rank's words and stages, and everyone's.
  const std::unique_ptr<DeviceBuffer> own_;
  std::unique_ptr<PeerMemory> peers_;
  Tensor registered_;
  std::unique_ptr<PeerMemory> registered_peers_;
  Numbers sent_ = {};
  Numbers received_ = {};
  uint32_t reductions_ = 0;
  int64_t sent_bytes_ = 0;
  std::atomic<uint32_t> latest_{0};
  mutable Mutex mutex_;
  absl::Status failure_ GUARDED_BY(mutex_);
};

}  // namespace lasp::worker
