#include "worker/parallel/state_passing.h"

namespace lasp::worker {
namespace {

class RingPassing final : public StatePassing {
 public:
  RingPassing(Backend* backend, Communicator* group) : backend_(*backend), group_(*group) {}

  void TakeScratch(const AttentionShape& widest, Arena& arena) override {
    const auto state = [&] {
      return arena.Take(MemoryUse::kStates, backend_.accumulation_type(),
                        widest.state_matrix_rows(), widest.head_size);
    };
    local_ = state();
    outgoing_ = state();
  }

  Tensor Local(const AttentionShape& shape) const override {
    return local_.Rows(0, shape.state_matrix_rows());
  }

  StateFlowEnds Start(const AttentionShape& shape, const StateFlow& flow) override {
    const FlowOrder order(group_, flow.gradient);
    StateFlowEnds ends;
    if (!order.first()) {
      ends.received = group_.ReceiveInto(flow.in, order.previous());
    }
    if (!order.last()) {
      const Tensor outgoing = outgoing_.Rows(0, shape.state_matrix_rows());
      ends.read = group_.Run([this, shape, flow, outgoing] {
        Hop(backend_, flow.gradient, shape, flow.in, flow.local, outgoing);
        return absl::OkStatus();
      });
      // The next operation on the communicator starts after this one is complete, so outgoing_ is
      // free again by then.
      ends.sent = group_.SendInto(outgoing, order.next(), flow.in_place);
    }
    return ends;
  }

  void FormOut(const AttentionShape& shape, const StateFlow& flow, Tensor out) override {
    Hop(backend_, flow.gradient, shape, flow.in, flow.local, out);
  }

 private:
  Backend& backend_;
  Communicator& group_;
  Tensor local_;
  Tensor outgoing_;
};

}  // namespace

std::unique_ptr<StatePassing> CreateRingPassing(Backend* backend, Communicator* group) {
  return std::make_unique<RingPassing>(backend, group);
}

}  // namespace lasp::worker
