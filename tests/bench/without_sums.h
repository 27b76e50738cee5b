// A communicator that leaves large sums out, so that what else goes over a link can be timed alone.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "worker/parallel/communicator.h"

namespace lasp::worker {

// AllReduceSum of more than `largest` numbers does nothing: each rank keeps its own. All else is
// the given communicator's, which must outlive this one.
class WithoutLargeSums : public Communicator {
 public:
  WithoutLargeSums(Communicator* given, int64_t largest) : given_(*given), largest_(largest) {}

  int rank() const override { return given_.rank(); }

  int size() const override { return given_.size(); }

  Operation Send(Tensor data, int peer) override { return given_.Send(data, peer); }

  Operation Receive(Tensor data, int peer) override { return given_.Receive(data, peer); }

  Operation SendInto(Tensor data, int peer, Tensor there) override {
    return given_.SendInto(data, peer, there);
  }

  Operation ReceiveInto(Tensor here, int peer) override { return given_.ReceiveInto(here, peer); }

  Operation Exchange(const std::vector<PeerTransfer>& transfers) override {
    return given_.Exchange(transfers);
  }

  Operation Run(std::function<absl::Status()> work) override { return given_.Run(std::move(work)); }

  Operation AllReduceSum(Tensor data) override {
    return data.count() > largest_ ? Operation() : given_.AllReduceSum(data);
  }

  Operation ReduceScatterSum(Tensor whole, Tensor part) override {
    return given_.ReduceScatterSum(whole, part);
  }

  Operation Broadcast(Tensor data, int root) override { return given_.Broadcast(data, root); }

  Operation AllGather(Tensor part, Tensor whole) override { return given_.AllGather(part, whole); }

  Operation Barrier() override { return given_.Barrier(); }

  absl::Status Register(Tensor memory) override { return given_.Register(memory); }

  CommunicatorCounters counters() const override { return given_.counters(); }

 private:
  Communicator& given_;
  const int64_t largest_;
};

}  // namespace lasp::worker
