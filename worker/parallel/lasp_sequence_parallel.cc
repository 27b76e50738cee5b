#include <memory>
#include <utility>

#include "proto/rpc/status_macros.h"
#include "worker/parallel/sequence_parallel.h"
#include "worker/parallel/state_passing.h"

namespace lasp::worker {
namespace {

// The schedule of LASP, around any way of passing the states.
class Lasp final : public SequenceParallel {
 public:
  Lasp(Backend* backend, Communicator* sp, std::unique_ptr<StatePassing> passing,
       bool carries_states)
      : backend_(*backend),
        sp_(*sp),
        passing_(std::move(passing)),
        carries_states_(carries_states) {}

  AttentionMemory TakeMemory(const AttentionShape& shape, Arena& arena) override {
    AttentionMemory memory = TakeLocalMemory(shape, arena);
    TakeReceivedMemory(shape, arena, &memory);
    return memory;
  }

  AttentionMemory TakeLocalMemory(const AttentionShape& shape, Arena& arena) override {
    AttentionMemory memory;
    memory.saved_states =
        arena.Take(MemoryUse::kStates, backend_.accumulation_type(),
                   shape.product_rows() * backend_.SavedStateCount(shape), shape.head_size);
    return memory;
  }

  void TakeReceivedMemory(const AttentionShape& shape, Arena& arena,
                          AttentionMemory* memory) override {
    if (sp_.size() > 1) {
      // On the first rank too, so that memory is laid out alike on all.
      memory->state_in_place = arena.Take(MemoryUse::kStates, backend_.accumulation_type(),
                                          shape.state_matrix_rows(), shape.head_size);
    }
    if (!first()) {
      memory->state_in = memory->state_in_place;
    }
  }

  void TakeScratch(const AttentionShape& widest, Arena& arena) override {
    passing_->TakeScratch(widest, arena);
    gradient_in_ = arena.Take(MemoryUse::kStates, backend_.accumulation_type(),
                              widest.state_matrix_rows(), widest.head_size);
    saved_gradients_ =
        arena.Take(MemoryUse::kStates, backend_.accumulation_type(),
                   widest.product_rows() * backend_.SavedStateCount(widest), widest.head_size);
  }

  bool carries_states() const override { return carries_states_; }

  absl::Status BeginForward(const AttentionShape& shape, const AttentionInputs& inputs,
                            const AttentionMemory& memory) override {
    // The layer before may still be reading its local state.
    LASP_RETURN_IF_ERROR(WaitFor(flow_.read));
    const Tensor local = passing_->Local(shape);
    if (shape.tokens > 0) {
      LocalState(shape, inputs, local, memory);
    }
    flow_ = passing_->Start(shape, {.gradient = false,
                                    .local = local,
                                    .in = memory.state_in,
                                    .in_place = memory.state_in_place});
    return absl::OkStatus();
  }

  absl::Status EndForward(const AttentionShape& shape, const AttentionInputs& inputs,
                          const AttentionMemory& memory, Tensor output) override {
    const AttentionForward tensors = ForwardOf(inputs, memory, output);
    const bool computes = shape.tokens > 0 && !output.empty();
    if (computes) {
      backend_.BeginOutput(shape, tensors);
    }
    LASP_RETURN_IF_ERROR(WaitFor(flow_.received));
    if (computes) {
      EndOutput(shape, tensors, memory);
    }
    if (last() && !memory.state_out.empty()) {
      Hop(backend_, /*gradient=*/false, shape, memory.state_in, passing_->Local(shape),
          memory.state_out);
    }
    return absl::OkStatus();
  }

  absl::Status Recompute(const AttentionShape& shape, const AttentionInputs& inputs,
                         const AttentionMemory& memory, Tensor output) override {
    // The layer behind may still be reading its local state.
    LASP_RETURN_IF_ERROR(WaitFor(flow_.read));
    if (shape.tokens == 0) {
      return absl::OkStatus();
    }
    LocalState(shape, inputs, passing_->Local(shape), memory);
    const AttentionForward tensors = ForwardOf(inputs, memory, output);
    backend_.BeginOutput(shape, tensors);
    EndOutput(shape, tensors, memory);
    return absl::OkStatus();
  }

  absl::Status Backward(const AttentionShape& shape, const AttentionInputs& inputs,
                        const AttentionMemory& memory, Tensor output_gradient,
                        const AttentionGradients& gradients) override {
    LASP_RETURN_IF_ERROR(WaitFor(flow_.read));
    const Tensor local = passing_->Local(shape);
    const Tensor saved_gradients = saved_gradients_.Rows(0, memory.saved_states.rows);
    const bool computes = shape.tokens > 0;
    const bool normalises = computes && shape.normalised;
    const Tensor denominator_gradient = memory.denominators;
    if (normalises) {
      normaliser().SplitGradient(shape, memory.output, output_gradient, memory.denominators);
      normaliser().QuerySum(shape, inputs.q, denominator_gradient, shape.KeySumsOf(local));
    }
    if (computes) {
      backend_.LocalStateGradient(shape, inputs.q, output_gradient, local, saved_gradients);
    }
    const Tensor gradient_place = gradient_in_.Rows(0, shape.state_matrix_rows());
    const Tensor gradient_in = last() ? memory.state_gradient_in : gradient_place;
    flow_ = passing_->Start(
        shape, {.gradient = true, .local = local, .in = gradient_in, .in_place = gradient_place});
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
    if (computes) {
      backend_.BeginGradients(shape, tensors);
    }
    if (normalises) {
      normaliser().AddQueryGradients(shape, inputs.k, denominator_gradient,
                                     shape.KeySumsOf(memory.state_in), gradients.q);
    }
    LASP_RETURN_IF_ERROR(WaitFor(flow_.received));
    if (computes) {
      backend_.EndGradients(shape, tensors);
    }
    if (normalises) {
      normaliser().AddKeyGradients(shape, inputs.q, denominator_gradient,
                                   shape.KeySumsOf(gradient_in), gradients.k);
    }
    if (first() && !memory.state_gradient_out.empty()) {
      Hop(backend_, /*gradient=*/true, shape, gradient_in, local, memory.state_gradient_out);
    }
    return absl::OkStatus();
  }

  absl::Status Finish() override {
    LASP_RETURN_IF_ERROR(WaitFor(flow_.read));
    return WaitFor(flow_.sent);
  }

 private:
  bool first() const { return sp_.rank() == 0; }

  bool last() const { return sp_.rank() == sp_.size() - 1; }

  // For normalised layers.
  LinearTransformerOps& normaliser() { return *backend_.linear_transformer(); }

  void LocalState(const AttentionShape& shape, const AttentionInputs& inputs, Tensor local,
                  const AttentionMemory& memory) {
    backend_.LocalState(shape, inputs.k, inputs.v, local, memory.saved_states);
    if (shape.normalised) {
      normaliser().KeySum(shape, inputs.k, shape.KeySumsOf(local));
    }
  }

  void EndOutput(const AttentionShape& shape, const AttentionForward& tensors,
                 const AttentionMemory& memory) {
    backend_.EndOutput(shape, tensors);
    if (shape.normalised) {
      normaliser().Normalise(shape, tensors.q, tensors.k, shape.KeySumsOf(tensors.state_in),
                             tensors.output, memory.denominators);
    }
  }

  static AttentionForward ForwardOf(const AttentionInputs& inputs, const AttentionMemory& memory,
                                    Tensor output) {
    return {.q = inputs.q,
            .k = inputs.k,
            .v = inputs.v,
            .saved_states = memory.saved_states,
            .state_in = memory.state_in,
            .output = output};
  }

  absl::Status WaitFor(Operation& operation) {
    const Phase before = backend_.EnterPhase(Phase::kSpWait);
    absl::Status status = operation.Wait();
    backend_.EnterPhase(before);
    return status;
  }

  Backend& backend_;
  Communicator& sp_;
  const std::unique_ptr<StatePassing> passing_;
  const bool carries_states_;
  Tensor gradient_in_;
  Tensor saved_gradients_;
  // The layer's under way.
  StateFlowEnds flow_;
};

}  // namespace

std::unique_ptr<SequenceParallel> CreateLasp(Backend* backend, Communicator* sp) {
  return std::make_unique<Lasp>(backend, sp, CreateRingPassing(backend, sp),
                                /*carries_states=*/true);
}

std::unique_ptr<SequenceParallel> CreateLasp2(Backend* backend, Communicator* sp) {
  // The gathered states are summed as of equal slices.
  return std::make_unique<Lasp>(backend, sp, CreateGatherPassing(backend, sp),
                                /*carries_states=*/false);
}

std::unique_ptr<SequenceParallel> CreateAllScan(Backend* backend, Communicator* sp,
                                                int64_t block_bytes) {
  return std::make_unique<Lasp>(backend, sp, CreateScanPassing(backend, sp, block_bytes),
                                /*carries_states=*/true);
}

}  // namespace lasp::worker
