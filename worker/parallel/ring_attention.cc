#include <memory>

#include "proto/rpc/status_macros.h"
#include "worker/parallel/key_value_ring.h"
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
        ring_(backend, sp),
        softmax_(CreateRingSoftmax(backend, sp)) {}

  AttentionMemory TakeMemory(const AttentionShape& shape, Arena& arena) override {
    AttentionMemory memory;
    if (shape.normalised) {
      memory.state_in = TakeKeySums(shape, arena);
    }
    return memory;
  }

  void TakeScratch(const AttentionShape& widest, Arena& arena) override {
    ring_.TakeScratch(2 * widest.batch * widest.tokens, widest.heads * widest.head_size, arena);
    if (widest.normalised) {
      visitor_sums_ = TakeKeySums(widest, arena);
    }
    if (const int64_t elements = product_.ScratchElements(widest); elements > 0) {
      scratch_ = arena.Take(MemoryUse::kWorkspace, backend_.activation_type(), 1, elements);
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
                            .output = output,
                            .scratch = scratch_});
    for (int step = 1; ring_.Sees(step); ++step) {
      LASP_ASSIGN_OR_RETURN(const Tensor block, ring_.Visitor(step));
      const KeysAndValues visitor{block};
      product_.Output(shape, {.distance = step * shape.tokens,
                              .q = inputs.q,
                              .k = visitor.keys(),
                              .v = visitor.values(),
                              .adds = true,
                              .output = output,
                              .scratch = scratch_});
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
    const KeysAndValues own_gradient{ring_.own_gradient()};
    product_.Gradients(shape, {.distance = 0,
                               .q = inputs.q,
                               .k = inputs.k,
                               .v = inputs.v,
                               .output_gradient = output_gradient,
                               .adds = false,
                               .q_gradient = gradients.q,
                               .k_gradient = own_gradient.keys(),
                               .v_gradient = own_gradient.values(),
                               .theta_gradient = gradients.theta,
                               .scratch = scratch_});
    if (shape.normalised) {
      normaliser().AddQueryGradients(shape, inputs.k, memory.denominators, memory.state_in,
                                     gradients.q);
      normaliser().AddKeyGradients(shape, inputs.q, memory.denominators, Tensor{},
                                   own_gradient.keys());
    }
    for (int step = 1; step < sp_.size(); ++step) {
      if (ring_.Sees(step)) {
        LASP_ASSIGN_OR_RETURN(const Tensor block, ring_.Visitor(step));
        const KeysAndValues visitor{block};
        const KeysAndValues part{ring_.VisitorGradient(step)};
        product_.Gradients(shape, {.distance = step * shape.tokens,
                                   .q = inputs.q,
                                   .k = visitor.keys(),
                                   .v = visitor.values(),
                                   .output_gradient = output_gradient,
                                   .adds = true,
                                   .q_gradient = gradients.q,
                                   .k_gradient = part.keys(),
                                   .v_gradient = part.values(),
                                   .theta_gradient = gradients.theta,
                                   .scratch = scratch_});
        if (shape.normalised) {
          normaliser().AddKeyGradients(shape, Tensor{}, Tensor{}, visitor_sums_, part.keys());
        }
      }
      LASP_RETURN_IF_ERROR(ring_.SendHome(step));
    }
    LASP_RETURN_IF_ERROR(ring_.EndHome());
    backend_.Copy(own_gradient.keys(), gradients.k);
    backend_.Copy(own_gradient.values(), gradients.v);
    return absl::OkStatus();
  }

  absl::Status Finish() override {
    LASP_RETURN_IF_ERROR(ring_.Finish());
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

  absl::Status SetOut(const AttentionInputs& inputs) {
    LASP_ASSIGN_OR_RETURN(const Tensor block, ring_.Own());
    const KeysAndValues own{block};
    backend_.Copy(inputs.k, own.keys());
    backend_.Copy(inputs.v, own.values());
    ring_.SetOut();
    return absl::OkStatus();
  }

  Backend& backend_;
  LeftProduct& product_;
  Communicator& sp_;
  KeyValueRing ring_;
  const std::unique_ptr<SoftmaxParallel> softmax_;
  // Of a visitor's keys; backward what all visitors' keys get of the denominators' gradient.
  Tensor visitor_sums_;
  Tensor scratch_;  // the product's
};

}  // namespace

std::unique_ptr<SequenceParallel> CreateRingAttention(Backend* backend, Communicator* sp) {
  LeftProduct* const product = backend->left_product();
  return product == nullptr ? nullptr : std::make_unique<RingAttention>(backend, product, sp);
}

}  // namespace lasp::worker
