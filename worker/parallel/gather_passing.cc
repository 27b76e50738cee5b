#include "worker/parallel/state_passing.h"

namespace lasp::worker {
namespace {

class GatherPassing final : public StatePassing {
 public:
  GatherPassing(Backend* backend, Communicator* group) : backend_(*backend), group_(*group) {}

  void TakeScratch(const AttentionShape& widest, Arena& arena) override {
    gathered_ = arena.Take(MemoryUse::kStates, backend_.accumulation_type(),
                           group_.size() * widest.state_matrix_rows(), widest.head_size);
  }

  Tensor Local(const AttentionShape& shape) const override { return PartOf(shape, group_.rank()); }

  StateFlowEnds Start(const AttentionShape& shape, const StateFlow& flow) override {
    if (group_.size() == 1) {
      return {};
    }
    const FlowOrder order(group_, flow.gradient);
    group_.AllGather(flow.local, gathered_.Rows(0, group_.size() * shape.state_matrix_rows()));
    // On the first rank too, where it does nothing: all ranks issue the same operations.
    const Operation summed = group_.Run([this, shape, flow, order] {
      HopOver(shape, flow, 0, order.place(), flow.before, flow.in);
      return absl::OkStatus();
    });
    return {.received = order.first() ? Operation() : summed, .read = summed, .sent = summed};
  }

  void FormOut(const AttentionShape& shape, const StateFlow& flow, Tensor out) override {
    HopOver(shape, flow, FlowOrder(group_, flow.gradient).place(), group_.size(), flow.in, out);
  }

 private:
  // From the state before the rank at place `begin` of the flow to the one before that at `end`.
  void HopOver(const AttentionShape& shape, const StateFlow& flow, int begin, int end,
               Tensor before, Tensor out) const {
    const FlowOrder order(group_, flow.gradient);
    AttentionShape slice = shape;
    for (int place = begin; place < end; ++place) {
      const int rank = order.RankAt(place);
      slice.tokens = flow.slices.Of(rank);
      slice.document_marks = flow.documents.Of(rank);
      Hop(backend_, flow.gradient, slice, place == begin ? before : out, PartOf(shape, rank), out);
    }
  }

  // Where a rank's state lies.
  Tensor PartOf(const AttentionShape& shape, int rank) const {
    return gathered_.Rows(rank * shape.state_matrix_rows(), shape.state_matrix_rows());
  }

  Backend& backend_;
  Communicator& group_;
  Tensor gathered_;
};

}  // namespace

std::unique_ptr<StatePassing> CreateGatherPassing(Backend* backend, Communicator* group) {
  return std::make_unique<GatherPassing>(backend, group);
}

}  // namespace lasp::worker
