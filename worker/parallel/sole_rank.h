// A group of one rank, whose operations have nothing to do.
#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "worker/device/backend.h"
#include "worker/parallel/communicator.h"

namespace lasp::worker {

// There is nobody to send to or to receive from.
class SoleRank final : public Communicator {
 public:
  // Must outlive this.
  explicit SoleRank(Backend* backend) : backend_(*backend) {}

  int rank() const override { return 0; }

  int size() const override { return 1; }

  Operation Send(Tensor /*data*/, int /*peer*/) override { return NoPeer(); }

  Operation Receive(Tensor /*data*/, int /*peer*/) override { return NoPeer(); }

  Operation Exchange(const std::vector<PeerTransfer>& transfers) override {
    return transfers.empty() ? Operation() : NoPeer();
  }

  Operation Run(std::function<absl::Status()> work) override { return Ended(work()); }

  Operation AllReduceSum(Tensor /*data*/) override { return {}; }

  Operation ReduceScatterSum(Tensor whole, Tensor part) override { return Same(whole, part); }

  Operation Broadcast(Tensor /*data*/, int /*root*/) override { return {}; }

  Operation AllGather(Tensor part, Tensor whole) override { return Same(part, whole); }

  Operation Barrier() override { return {}; }

  CommunicatorCounters counters() const override { return {}; }

 private:
  static Operation Ended(absl::Status status) {
    auto completion = std::make_shared<HostCompletion>();
    completion->Set(std::move(status));
    return {std::move(completion), absl::ZeroDuration()};
  }

  static Operation NoPeer() {
    return Ended(absl::InvalidArgumentError("a group of one rank has no peers"));
  }

  Operation Same(Tensor from, Tensor to) {
    if (from.data != to.data) {
      backend_.Copy(from, to);
    }
    return {};
  }

  Backend& backend_;
};

}  // namespace lasp::worker
