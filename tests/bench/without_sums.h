// A communicator that leaves large sums out, so that what else goes over a link can be timed alone.
#pragma once

#include <cstdint>

#include "tests/worker/parallel/forwarding_communicator.h"

namespace lasp::worker {

// AllReduceSum of more than `largest` numbers does nothing: each rank keeps its own.
class WithoutLargeSums : public ForwardingCommunicator {
 public:
  WithoutLargeSums(Communicator* given, int64_t largest)
      : ForwardingCommunicator(given), largest_(largest) {}

  Operation AllReduceSum(Tensor data) override {
    return data.count() > largest_ ? Operation() : inner().AllReduceSum(data);
  }

 private:
  const int64_t largest_;
};

}  // namespace lasp::worker
