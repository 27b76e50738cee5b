// A communicator that hands everything on to another one, for those that change a little of it.
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "worker/parallel/communicator.h"

namespace lasp::worker {

class ForwardingCommunicator : public Communicator {
 public:
  // `inner` must outlive this.
  explicit ForwardingCommunicator(Communicator* inner) : inner_(*inner) {}

  int rank() const override { return inner_.rank(); }

  int size() const override { return inner_.size(); }

  Operation Send(Tensor data, int peer) override { return inner_.Send(data, peer); }

  Operation Receive(Tensor data, int peer) override { return inner_.Receive(data, peer); }

  Operation SendInto(Tensor data, int peer, Tensor there) override {
    return inner_.SendInto(data, peer, there);
  }

  Operation ReceiveInto(Tensor here, int peer) override { return inner_.ReceiveInto(here, peer); }

  Operation Exchange(const std::vector<PeerTransfer>& transfers) override {
    return inner_.Exchange(transfers);
  }

  Operation Run(std::function<absl::Status()> work) override { return inner_.Run(std::move(work)); }

  Operation AllReduceSum(Tensor data) override { return inner_.AllReduceSum(data); }

  Operation ReduceScatterSum(Tensor whole, Tensor part) override {
    return inner_.ReduceScatterSum(whole, part);
  }

  Operation Broadcast(Tensor data, int root) override { return inner_.Broadcast(data, root); }

  Operation AllGather(Tensor part, Tensor whole) override { return inner_.AllGather(part, whole); }

  Operation Barrier() override { return inner_.Barrier(); }

  absl::Status Register(Tensor memory) override { return inner_.Register(memory); }

  CommunicatorCounters counters() const override { return inner_.counters(); }

 protected:
  Communicator& inner() const { return inner_; }

 private:
  Communicator& inner_;
};

}  // namespace lasp::worker
