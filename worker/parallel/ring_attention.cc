#include <array>
#include <memory>
#include <vector>

#include "proto/rpc/status_macros.h"
#include "worker/parallel/sequence_parallel.h"

namespace lasp::worker {
namespace {

// Keys and values of one rank's tokens, or their gradients: contiguous.
struct KeysAndValues {
  Tensor both;  // [2 * batch * tokens, heads * head_size]

  Tensor keys() const { return both.Rows(0, both.rows / 2); }

  Tensor values() const { return both.Rows(both.rows / 2, both.rows / 2); }
};

class RingAttention final : public SequenceParallel {
 public:
  RingAttention(Backend* backend, LeftProduct* product, Communicator* sp)
      : backend_(*backend),
        product_(*product),
        sp_(*sp),
        softmax_(CreateRingSoftmax(backend, sp)) {}

  AttentionMemory TakeMemory(const AttentionShape& shape, Arena& arena) override {
    AttentionMemory memory;
    if (shape.normalised) {
      memory.state_in = TakeKeySums(shape, arena);
    }
    return memory;
  }

  void TakeScratch(const AttentionShape& widest, Arena& arena) override {
    const auto take = [&] {
      return KeysAndValues{arena.Take(MemoryUse::kWorkspace, backend_.activation_type(),
                                      2 * widest.batch * widest.tokens,
                                      widest.heads * widest.head_size)};
    };
    visiting_ = {take(), take()};
    gradients_ = take();
    parts_ = {take(), take()};
    arrived_ = {take(), take()};
    if (widest.normalised) {
      visitor_sums_ = TakeKeySums(widest, arena);
    }
  }

  absl::Status BeginForward(const AttentionShape& /*shape*/, const AttentionInputs& inputs,
                            const AttentionMemory& /*memory*/) override {
    return SetOut(inputs);
  }

  absl::Status EndForward(const AttentionShape& shape, const AttentionInputs& inputs,
                          const AttentionMemory& memory, Tensor output) override {
    if (shape.normalised) {
      backend_.Fill(0, memory.state_in);
    }
    product_.Output(shape, {.distance = 0,
                            .q = inputs.q,
                            .k = inputs.k,
                            .v = inputs.v,
                            .adds = false,
                            .output = output});
    for (int step = 1; step <= sp_.rank(); ++step) {
      LASP_RETURN_IF_ERROR(WaitFor(travel_));
      travel_ = Travel(step + 1);
      const KeysAndValues& visitor = VisitorAt(step);
      product_.Output(shape, {.distance = step * shape.tokens,
                              .q = inputs.q,
                              .k = visitor.keys(),
                              .v = visitor.values(),
                              .adds = true,
                              .output = output});
      if (shape.normalised) {
        normaliser().KeySum(shape, visitor.keys(), visitor_sums_);
        backend_.Axpy(1, visitor_sums_, memory.state_in);
      }
    }
    if (shape.normalised) {
      normaliser().Normalise(shape, inputs.q, inputs.k, memory.state_in, output,
                             memory.denominators);
    }
    return absl::OkStatus();
  }

  absl::Status Backward(const AttentionShape& shape, const AttentionInputs& inputs,
                        const AttentionMemory& memory, Tensor output_gradient,
                        const AttentionGradients& gradients) override {
    LASP_RETURN_IF_ERROR(SetOut(inputs));
    if (shape.normalised) {
      normaliser().SplitGradient(shape, memory.output, output_gradient, memory.denominators);
      // Of the keys of every rank before this one alike.
      normaliser().QuerySum(shape, inputs.q, memory.denominators, visitor_sums_);
    }
    product_.Gradients(shape, {.distance = 0,
                               .q = inputs.q,
                               .k = inputs.k,
                               .v = inputs.v,
                               .output_gradient = output_gradient,
                               .adds = false,
                               .q_gradient = gradients.q,
                               .k_gradient = gradients_.keys(),
                               .v_gradient = gradients_.values(),
                               .theta_gradient = gradients.theta});
    if (shape.normalised) {
      normaliser().AddQueryGradients(shape, inputs.k, memory.denominators, memory.state_in,
                                     gradients.q);
      normaliser().AddKeyGradients(shape, inputs.q, memory.denominators, Tensor{},
                                   gradients_.keys());
    }
    Operation home;
    for (int step = 1; step < sp_.size(); ++step) {
      if (Sees(step)) {
        LASP_RETURN_IF_ERROR(WaitFor(travel_));
        travel_ = Travel(step + 1);
        const KeysAndValues& visitor = VisitorAt(step);
        const KeysAndValues& part = parts_[step % 2];
        product_.Gradients(shape, {.distance = step * shape.tokens,
                                   .q = inputs.q,
                                   .k = visitor.keys(),
                                   .v = visitor.values(),
                                   .output_gradient = output_gradient,
                                   .adds = true,
                                   .q_gradient = gradients.q,
                                   .k_gradient = part.keys(),
                                   .v_gradient = part.values(),
                                   .theta_gradient = gradients.theta});
        if (shape.normalised) {
          normaliser().AddKeyGradients(shape, Tensor{}, Tensor{}, visitor_sums_, part.keys());
        }
      }
      Operation next = GoHome(step);
      LASP_RETURN_IF_ERROR(AddArrived(home, step - 1));
      home = next;
    }
    LASP_RETURN_IF_ERROR(AddArrived(home, sp_.size() - 1));
    backend_.Copy(gradients_.keys(), gradients.k);
    backend_.Copy(gradients_.values(), gradients.v);
    return absl::OkStatus();
  }

  absl::Status Finish() override {
    LASP_RETURN_IF_ERROR(WaitFor(travel_));
    return softmax_ == nullptr ? absl::OkStatus() : softmax_->Finish();
  }

  SoftmaxParallel* softmax() override { return softmax_.get(); }

 private:
  // For normalised layers.
  LinearTransformerOps& normaliser() { return *backend_.linear_transformer(); }

  Tensor TakeKeySums(const AttentionShape& shape, Arena& arena) {
    return arena.Take(MemoryUse::kStates, backend_.accumulation_type(), shape.batch * shape.heads,
                      shape.head_size);
  }

  absl::Status WaitFor(Operation& operation) {
    const Phase before = backend_.EnterPhase(Phase::kSpWait);
    absl::Status status = operation.Wait();
    backend_.EnterPhase(before);
    return status;
  }

  // After `step` steps this rank has the keys and values of the rank so many before it.
  bool Sees(int step) const { return step <= sp_.rank(); }

  const KeysAndValues& VisitorAt(int step) const { return visiting_[step % 2]; }

  absl::Status SetOut(const AttentionInputs& inputs) {
    // The layer before may still be sending what lies there.
    LASP_RETURN_IF_ERROR(WaitFor(travel_));
    backend_.Copy(inputs.k, VisitorAt(0).keys());
    backend_.Copy(inputs.v, VisitorAt(0).values());
    travel_ = Travel(1);
    return absl::OkStatus();
  }

  // What this rank had a step ago goes on to the next, and what that of the rank before had comes.
  // No rank passes on what no later rank sees.
  Operation Travel(int step) {
    std::vector<PeerTransfer> transfers;
    if (sp_.rank() + 1 < sp_.size() && Sees(step - 1)) {
      transfers.push_back({.peer = sp_.rank() + 1,
                           .send = VisitorAt(step - 1).both,
                           .there = VisitorAt(step).both,
                           .receive = {}});
    }
    if (Sees(step)) {
      transfers.push_back(
          {.peer = sp_.rank() - 1, .send = {}, .there = {}, .receive = VisitorAt(step).both});
    }
    return transfers.empty() ? Operation() : sp_.Exchange(transfers);
  }

  // The gradients of a step's visitor go straight to the rank that it came from: as many bytes as
  // if they went on with it and then home.
  Operation GoHome(int step) {
    std::vector<PeerTransfer> transfers;
    if (Sees(step)) {
      transfers.push_back({.peer = sp_.rank() - step,
                           .send = parts_[step % 2].both,
                           .there = arrived_[step % 2].both,
                           .receive = {}});
    }
    if (sp_.rank() + step < sp_.size()) {
      transfers.push_back(
          {.peer = sp_.rank() + step, .send = {}, .there = {}, .receive = arrived_[step % 2].both});
    }
    return transfers.empty() ? Operation() : sp_.Exchange(transfers);
  }

  absl::Status AddArrived(Operation& home, int step) {
    LASP_RETURN_IF_ERROR(WaitFor(home));
    if (step > 0 && sp_.rank() + step < sp_.size()) {
      backend_.Axpy(1, arrived_[step % 2].both, gradients_.both);
    }
    return absl::OkStatus();
  }

  Backend& backend_;
  LeftProduct& product_;
  Communicator& sp_;
  const std::unique_ptr<SoftmaxParallel> softmax_;
  // In turn: one is computed on and goes on while the next comes.
  std::array<KeysAndValues, 2> visiting_;
  KeysAndValues gradients_;  // of this rank's own
  std::array<KeysAndValues, 2> parts_;
  std::array<KeysAndValues, 2> arrived_;
  // Of a visitor's keys; backward what all visitors' keys get of the denominators' gradient.
  Tensor visitor_sums_;
  Operation travel_;
};

}  // namespace

std::unique_ptr<SequenceParallel> CreateRingAttention(Backend* backend, Communicator* sp) {
  LeftProduct* const product = backend->left_product();
  return product == nullptr ? nullptr : std::make_unique<RingAttention>(backend, product, sp);
}

}  // namespace lasp::worker
