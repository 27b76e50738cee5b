#include <memory>

#include "proto/rpc/status_macros.h"
#include "worker/parallel/sequence_parallel.h"

namespace lasp::worker {
namespace {

class Lasp : public SequenceParallel {
 public:
  Lasp(Backend* backend, Communicator* sp) : backend_(*backend), sp_(*sp) {}

  AttentionMemory TakeMemory(const AttentionShape& shape, Arena& arena) override {
    AttentionMemory memory;
    memory.saved_states =
        arena.Take(MemoryUse::kStates, backend_.accumulation_type(),
                   shape.state_matrix_rows() * backend_.SavedStateCount(shape), shape.head_size);
    if (sp_.size() > 1) {
      // On the first rank too, so that memory is laid out alike on all.
      memory.state_in_place = arena.Take(MemoryUse::kStates, backend_.accumulation_type(),
                                         shape.state_matrix_rows(), shape.head_size);
    }
    if (!first()) {
      memory.state_in = memory.state_in_place;
    }
    return memory;
  }

  void TakeScratch(const AttentionShape& widest, Arena& arena) override {
    const auto state = [&] {
      return arena.Take(MemoryUse::kStates, backend_.accumulation_type(),
                        widest.state_matrix_rows(), widest.head_size);
    };
    local_ = state();
    outgoing_ = state();
    gradient_in_ = state();
    saved_gradients_ =
        arena.Take(MemoryUse::kStates, backend_.accumulation_type(),
                   widest.state_matrix_rows() * backend_.SavedStateCount(widest), widest.head_size);
  }

  absl::Status BeginForward(const AttentionShape& shape, const AttentionInputs& inputs,
                            const AttentionMemory& memory) override {
    // The hop of the layer before reads local_ on the communicator.
    LASP_RETURN_IF_ERROR(WaitFor(hop_));
    const Tensor local = StateOf(shape, local_);
    backend_.LocalState(shape, inputs.k, inputs.v, local, memory.saved_states);
    received_ = {};
    if (!first()) {
      received_ = sp_.ReceiveInto(memory.state_in, sp_.rank() - 1);
    }
    if (!last()) {
      const Tensor outgoing = StateOf(shape, outgoing_);
      const Tensor state_in = memory.state_in;
      hop_ = sp_.Run([this, shape, state_in, local, outgoing] {
        backend_.StateHop(shape, state_in, local, outgoing);
        return absl::OkStatus();
      });
      // The next operation on the communicator starts after this one is complete, so outgoing_ is
      // free again by then.
      sent_ = sp_.SendInto(outgoing, sp_.rank() + 1, memory.state_in_place);
    }
    return absl::OkStatus();
  }

  absl::Status EndForward(const AttentionShape& shape, const AttentionInputs& inputs,
                          const AttentionMemory& memory, Tensor output) override {
    const AttentionForward tensors{.q = inputs.q,
                                   .k = inputs.k,
                                   .v = inputs.v,
                                   .saved_states = memory.saved_states,
                                   .state_in = memory.state_in,
                                   .output = output};
    backend_.BeginOutput(shape, tensors);
    LASP_RETURN_IF_ERROR(WaitFor(received_));
    backend_.EndOutput(shape, tensors);
    return absl::OkStatus();
  }

  absl::Status Backward(const AttentionShape& shape, const AttentionInputs& inputs,
                        const AttentionMemory& memory, Tensor output_gradient,
                        const AttentionGradients& gradients) override {
    LASP_RETURN_IF_ERROR(WaitFor(hop_));
    const Tensor local = StateOf(shape, local_);
    const Tensor saved_gradients = saved_gradients_.Rows(0, memory.saved_states.rows);
    backend_.LocalStateGradient(shape, inputs.q, output_gradient, local, saved_gradients);
    const Tensor gradient_in = last() ? Tensor{} : StateOf(shape, gradient_in_);
    received_ = {};
    if (!last()) {
      received_ = sp_.ReceiveInto(gradient_in, sp_.rank() + 1);
    }
    if (!first()) {
      const Tensor outgoing = StateOf(shape, outgoing_);
      hop_ = sp_.Run([this, shape, gradient_in, local, outgoing] {
        backend_.StateGradientHop(shape, gradient_in, local, outgoing);
        return absl::OkStatus();
      });
      sent_ = sp_.SendInto(outgoing, sp_.rank() - 1, StateOf(shape, gradient_in_));
    }
    const AttentionBackward tensors{.q = inputs.q,
                                    .k = inputs.k,
                                    .v = inputs.v,
                                    .output_gradient = output_gradient,
                                    .saved_states = memory.saved_states,
                                    .saved_gradients = saved_gradients,
                                    .state_in = memory.state_in,
                                    .state_gradient_in = gradient_in,
                                    .q_gradient = gradients.q,
                                    .k_gradient = gradients.k,
                                    .v_gradient = gradients.v,
                                    .theta_gradient = gradients.theta};
    backend_.BeginGradients(shape, tensors);
    LASP_RETURN_IF_ERROR(WaitFor(received_));
    backend_.EndGradients(shape, tensors);
    return absl::OkStatus();
  }

  absl::Status Finish() override {
    LASP_RETURN_IF_ERROR(WaitFor(hop_));
    return WaitFor(sent_);
  }

 private:
  bool first() const { return sp_.rank() == 0; }

  bool last() const { return sp_.rank() == sp_.size() - 1; }

  absl::Status WaitFor(Operation& operation) {
    const Phase before = backend_.EnterPhase(Phase::kSpWait);
    absl::Status status = operation.Wait();
    backend_.EnterPhase(before);
    return status;
  }

  // The part of a scratch state, sized for the widest layer, that a layer of `shape` uses.
  static Tensor StateOf(const AttentionShape& shape, Tensor scratch) {
    return scratch.Rows(0, shape.state_matrix_rows());
  }

  Backend& backend_;
  Communicator& sp_;
  Tensor local_;
  Tensor outgoing_;
  Tensor gradient_in_;
  Tensor saved_gradients_;
  // The layer's under way.
  Operation received_;
  Operation hop_;
  Operation sent_;
};

}  // namespace

std::unique_ptr<SequenceParallel> CreateLasp(Backend* backend, Communicator* sp) {
  return std::make_unique<Lasp>(backend, sp);
}

}  // namespace lasp::worker
