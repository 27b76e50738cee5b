// A communicator whose thread can be made to hang, as it does where a message never comes.
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "tests/faults/rank/fault_plan.h"
#include "tests/faults/rank/faulty_backend.h"
#include "tests/worker/parallel/forwarding_communicator.h"

namespace lasp::worker {

class FaultyCommunicator : public ForwardingCommunicator {
 public:
  // All must outlive this.
  FaultyCommunicator(Communicator* inner, FaultPlan* plan, const StepPlace* step)
      : ForwardingCommunicator(inner), plan_(*plan), step_(*step) {}

  Operation Send(Tensor data, int peer) override { return At(step_.place()).Send(data, peer); }

  Operation Receive(Tensor data, int peer) override {
    return At(step_.place()).Receive(data, peer);
  }

  Operation SendInto(Tensor data, int peer, Tensor there) override {
    return At(step_.place()).SendInto(data, peer, there);
  }

  Operation ReceiveInto(Tensor here, int peer) override {
    return At(step_.place()).ReceiveInto(here, peer);
  }

  Operation Exchange(const std::vector<PeerTransfer>& transfers) override {
    return At(step_.place()).Exchange(transfers);
  }

  Operation Run(std::function<absl::Status()> work) override {
    return At(step_.place()).Run(std::move(work));
  }

  Operation AllReduceSum(Tensor data) override { return At(step_.place()).AllReduceSum(data); }

  Operation ReduceScatterSum(Tensor whole, Tensor part) override {
    return At(step_.place()).ReduceScatterSum(whole, part);
  }

  Operation Broadcast(Tensor data, int root) override {
    plan_.Reach(FaultPlace::kRestore);
    return At(FaultPlace::kRestore).Broadcast(data, root);
  }

  Operation AllGather(Tensor part, Tensor whole) override {
    return At(step_.place()).AllGather(part, whole);
  }

 private:
  // What is issued next waits behind the hanging operation.
  Communicator& At(FaultPlace place) {
    if (plan_.HangsAt(place)) {
      inner().Run([]() -> absl::Status { HangForever(); });
    }
    return inner();
  }

  FaultPlan& plan_;
  const StepPlace& step_;
};

}  // namespace lasp::worker
