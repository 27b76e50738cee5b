// A communicator over a group of ranks of a GlooMesh, with algorithms of our own: each sums in the
// order of the ranks, so that results are bit-equal from run to run and from rank to rank.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "worker/device/backend.h"
#include "worker/parallel/collective_log.h"
#include "worker/parallel/communicator.h"
#include "worker/parallel/gloo_mesh.h"

namespace lasp::worker {

class GlooCommunicator : public Communicator {
 public:
  struct Options {
    // Ranks of the mesh, in the order of the group; this rank among them.
    std::vector<int> members;
    // Keeps communicators over one mesh apart; at least kFirstSlot.
    uint64_t slot = kFirstSlot;
    // How long any one wait may last.
    absl::Duration timeout = absl::Minutes(10);
    // Told of every operation; null for nobody. Must outlive this.
    CollectiveLog* log = nullptr;
  };

  static constexpr uint64_t kFirstSlot = 16;

  // Both must outlive this.
  GlooCommunicator(GlooMesh* mesh, Backend* backend, Options options);
  // Aborts.
  ~GlooCommunicator() override;
  GlooCommunicator(const GlooCommunicator&) = delete;
  GlooCommunicator& operator=(const GlooCommunicator&) = delete;

  // Cancels what is under way, and all that is issued later. Any thread.
  void Abort();

  int rank() const override { return rank_; }

  int size() const override { return static_cast<int>(options_.members.size()); }

  Operation Send(Tensor data, int peer) override;
  Operation Receive(Tensor data, int peer) override;
  Operation Exchange(const std::vector<PeerTransfer>& transfers) override;
  Operation Run(std::function<absl::Status()> work) override;
  Operation AllReduceSum(Tensor data) override;
  Operation ReduceScatterSum(Tensor whole, Tensor part) override;
  Operation Broadcast(Tensor data, int root) override;
  Operation AllGather(Tensor part, Tensor whole) override;
  Operation Barrier() override;

  CommunicatorCounters counters() const override;

 private:
  struct Task {
    uint32_t number = 0;  // the log's
    std::function<absl::Status()> work;
    std::shared_ptr<HostCompletion> completion;
  };

  // What one operation starts and then waits for.
  class Transfers;
  class LoggedCompletion;

  Operation Enqueue(const char* operation, int peer, int64_t bytes,
                    std::function<absl::Status()> work);
  void RunTasks();
  absl::Status DoAllReduceSum(Tensor data);
  absl::Status ReduceWhole(Tensor data);
  absl::Status ReduceByPieces(Tensor data);
  // Every rank sends what lies in the pieces of the others, and adds up what it has and gets of its
  // own, in the order of the ranks, into `sum`, which may be its piece.
  absl::Status ReduceScatter(const std::function<Tensor(int rank)>& piece, Tensor sum);
  absl::Status DoAllGather(Tensor part, Tensor whole);
  absl::Status DoExchange(const std::vector<PeerTransfer>& wanted);
  absl::Status DoBroadcast(Tensor data, int root);
  // Memory for what peers send, on the communicator's thread; grows to the largest operation.
  char* Scratch(int64_t bytes);

  GlooMesh* const mesh_;
  Backend* const backend_;
  const Options options_;
  int rank_ = 0;
  std::atomic<int64_t> sent_bytes_{0};
  std::vector<char> scratch_;
  double barrier_token_ = 0;

  mutable Mutex mutex_;
  CondVar changed_;
  // Bounded by its one issuer, who waits for all of a step's operations before the next step.
  std::deque<Task> tasks_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  // Under way; so that the destructor can cancel them.
  std::vector<Transfer*> transfers_ GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace lasp::worker
