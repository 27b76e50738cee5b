// The communication seam: operations among a group of ranks, issued by one thread, run in that
// order beside it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "proto/rpc/mutex.h"
#include "worker/device/tensor.h"

namespace lasp::worker {

// The end of one operation. Thread-safe.
class Completion {
 public:
  virtual ~Completion() = default;
  // Returns when what the caller issues next may rely on the operation: on the CPU when it has
  // ended, on a GPU at once, having made the caller's stream wait for it. The operation's status as
  // far as it is known, or DEADLINE_EXCEEDED after `timeout`.
  virtual absl::Status Wait(absl::Duration timeout) = 0;
};

// The end of what another thread does.
class HostCompletion : public Completion {
 public:
  void Set(absl::Status status);
  absl::Status Wait(absl::Duration timeout) override;

 private:
  Mutex mutex_;
  CondVar changed_;
  bool done_ GUARDED_BY(mutex_) = false;
  absl::Status status_ GUARDED_BY(mutex_);
};

// Totals since the communicator was made.
struct CommunicatorCounters {
  // Payload this rank has sent, without framing.
  int64_t sent_bytes = 0;
};

// One issued operation; a default one is complete. The tensors it was given must live and, where it
// reads them, stay unchanged until it is complete. Cheap to copy.
class Operation {
 public:
  Operation() = default;

  Operation(std::shared_ptr<Completion> completion, absl::Duration timeout)
      : completion_(std::move(completion)), timeout_(timeout) {}

  // Waits for the end of the operation, at most for the communicator's timeout. UNAVAILABLE names
  // the peer that is gone; DEADLINE_EXCEEDED says that nothing came in time.
  absl::Status Wait() { return Wait(timeout_); }

  absl::Status Wait(absl::Duration timeout) {
    return completion_ == nullptr ? absl::OkStatus() : completion_->Wait(timeout);
  }

 private:
  std::shared_ptr<Completion> completion_;
  absl::Duration timeout_;
};

// What goes to one other rank of the group and what comes from it, one message each way at most: an
// empty tensor is none.
struct PeerTransfer {
  int peer = 0;
  Tensor send;
  // Lies in this rank's memory where the peer's `receive` lies in its own, as for SendInto.
  Tensor there;
  Tensor receive;
};

// Every rank of the group must issue its collective operations in the same order, and sends and
// receives so that they pair up. After a failure every operation fails with the same status.
// Operations are issued by one thread; the counters may be read by any. All tensors are contiguous.
class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // `peer` is a rank of this group.
  virtual Operation Send(Tensor data, int peer) = 0;
  virtual Operation Receive(Tensor data, int peer) = 0;

  // A send and its receive that both say where the data goes, so that it need not be copied there
  // from a buffer: `there` lies in this rank's memory where `here` lies in the peer's.
  virtual Operation SendInto(Tensor data, int peer, Tensor /*there*/) { return Send(data, peer); }

  virtual Operation ReceiveInto(Tensor here, int peer) { return Receive(here, peer); }

  // Sends and receives that are under way together: none waits for another of the same call. Those
  // between two ranks pair up in order. No two tensors overlap.
  virtual Operation Exchange(const std::vector<PeerTransfer>& transfers) = 0;

  // Runs `work` in its turn, on the thread or stream of the communication: what must happen between
  // a receive and a send without the issuing thread.
  virtual Operation Run(std::function<absl::Status()> work) = 0;
  // Sums element by element, in place, in the order of the ranks: all ranks get the same bits.
  virtual Operation AllReduceSum(Tensor data) = 0;
  // `whole` [size * rows of part, columns]: parts in rank order, of which each rank gets the sum of
  // its own, added up in the order of the ranks. `part` may be its place in `whole`; the rest of
  // `whole` stays as it is.
  virtual Operation ReduceScatterSum(Tensor whole, Tensor part) = 0;
  virtual Operation Broadcast(Tensor data, int root) = 0;
  // `whole` [size * rows of part, columns]: the parts in rank order. `part` may lie in its place
  // there.
  virtual Operation AllGather(Tensor part, Tensor whole) = 0;
  // Complete when every rank has issued it.
  virtual Operation Barrier() = 0;

  // Every rank calls it with memory of its own, of one size and laid out alike: sums and receives
  // into tensors within may then reach it on the other ranks, as fast as the hardware can. What is
  // registered later takes the place of what was.
  // The memory must stay until the communicator's last operation on it has ended on every rank.
  virtual absl::Status Register(Tensor /*memory*/) { return absl::OkStatus(); }

  virtual CommunicatorCounters counters() const = 0;
};

}  // namespace lasp::worker
