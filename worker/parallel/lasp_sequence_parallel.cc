#include <algorithm>
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
       StateCarrying carrying)
      : backend_(*backend),
        sp_(*sp),
        passing_(std::move(passing)),
        softmax_(CreateGatheredSoftmax(backend, sp)),
        carrying_(carrying) {}

  void ExpectAtEnd(const SequenceSlices& last) override { last_ = last; }

  void UseSlices(const SequenceSlices& slices) override { slices_ = slices; }

  void UseDocuments(const DocumentMarks& documents) override { documents_ = documents; }

  AttentionMemory TakeMemory(const AttentionShape& shape, Arena& arena) override {
    AttentionMemory memory = TakeLocalMemory(shape, arena);
    TakeReceivedMemory(shape, arena, &memory);
    return memory;
  }

  AttentionMemory TakeLocalMemory(const AttentionShape& shape, Arena& arena) override {
    AttentionMemory memory;
    memory.saved_states =
        arena.Take(MemoryUse::kStates, backend_.accumulation_type(),
                   shape.product_rows() * MostSavedStates(shape), shape.head_size);
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
                   widest.product_rows() * MostSavedStates(widest), widest.head_size);
  }

  StateCarrying state_carrying() const override { return carrying_; }

  absl::Status BeginForward(const AttentionShape& shape, const AttentionInputs& inputs,
                            const AttentionMemory& memory) override {
    // The layer before may still be reading its local state.
    LASP_RETURN_IF_ERROR(WaitFor(ends_.read));
    const Tensor local = passing_->Local(shape);
    if (shape.tokens > 0) {
      LocalState(shape, inputs, local, memory);
    }
    flow_ = {.gradient = false,
             .slices = SlicesOf(shape),
             .documents = documents_,
             .local = local,
             .in = memory.state_in,
             .in_place = memory.state_in_place,
             .before = memory.state_before};
    ends_ = passing_->Start(shape, flow_);
    return absl::OkStatus();
  }

  absl::Status EndForward(const AttentionShape& shape, const AttentionInputs& inputs,
                          const AttentionMemory& memory, Tensor output) override {
    const AttentionForward tensors = ForwardOf(inputs, memory, output);
    const bool computes = shape.tokens > 0 && !output.empty();
    if (computes) {
      backend_.BeginOutput(shape, tensors);
    }
    LASP_RETURN_IF_ERROR(WaitFor(ends_.received));
    if (computes) {
      EndOutput(shape, tensors, memory);
    }
    return FormOut(shape, memory.state_out);
  }

  absl::Status Recompute(const AttentionShape& shape, const AttentionInputs& inputs,
                         const AttentionMemory& memory, Tensor output) override {
    // The layer behind may still be reading its local state.
    LASP_RETURN_IF_ERROR(WaitFor(ends_.read));
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
    LASP_RETURN_IF_ERROR(WaitFor(ends_.read));
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
    flow_ = {.gradient = true,
             .slices = SlicesOf(shape),
             .documents = documents_,
             .local = local,
             .in = gradient_in,
             .in_place = gradient_place,
             .before = memory.state_gradient_in};
    ends_ = passing_->Start(shape, flow_);
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
    LASP_RETURN_IF_ERROR(WaitFor(ends_.received));
    if (computes) {
      backend_.EndGradients(shape, tensors);
    }
    if (normalises) {
      normaliser().AddKeyGradients(shape, inputs.q, denominator_gradient,
                                   shape.KeySumsOf(gradient_in), gradients.k);
    }
    return FormOut(shape, memory.state_gradient_out);
  }

  absl::Status Finish() override {
    LASP_RETURN_IF_ERROR(WaitFor(ends_.read));
    return WaitFor(ends_.sent);
  }

  SoftmaxParallel* softmax() override { return softmax_.get(); }

 private:
  bool first() const { return sp_.rank() == 0; }

  bool last() const { return sp_.rank() == sp_.size() - 1; }

  SequenceSlices SlicesOf(const AttentionShape& shape) const {
    return slices_.OrEven(shape.tokens, sp_.size());
  }

  // Of the shape's tokens and of a slice cut short: on a GPU fewer tokens may need more.
  int64_t MostSavedStates(AttentionShape shape) const {
    int64_t most = backend_.SavedStateCount(shape);
    if (last_.CutShort() > 0) {
      shape.tokens = last_.CutShort();
      most = std::max(most, backend_.SavedStateCount(shape));
    }
    return most;
  }

  // What the macro-chunk leaves, where this rank is to form it.
  absl::Status FormOut(const AttentionShape& shape, Tensor out) {
    if (out.empty()) {
      return absl::OkStatus();
    }
    LASP_RETURN_IF_ERROR(WaitFor(ends_.read));
    passing_->FormOut(shape, flow_, out);
    return absl::OkStatus();
  }

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
  const std::unique_ptr<SoftmaxParallel> softmax_;
  const StateCarrying carrying_;
  SequenceSlices last_;
  SequenceSlices slices_;
  DocumentMarks documents_;
  Tensor gradient_in_;
  Tensor saved_gradients_;
  // The layer's under way.
  StateFlow flow_;
  StateFlowEnds ends_;
};

}  // namespace

std::unique_ptr<SequenceParallel> CreateLasp(Backend* backend, Communicator* sp) {
  return std::make_unique<Lasp>(backend, sp, CreateRingPassing(backend, sp),
                                StateCarrying::kLastToFirst);
}

std::unique_ptr<SequenceParallel> CreateLasp2(Backend* backend, Communicator* sp) {
  // Whoever has all states forms the last one too.
  return std::make_unique<Lasp>(backend, sp, CreateGatherPassing(backend, sp),
                                StateCarrying::kEverywhere);
}

std::unique_ptr<SequenceParallel> CreateAllScan(Backend* backend, Communicator* sp,
                                                int64_t block_bytes) {
  return std::make_unique<Lasp>(backend, sp, CreateScanPassing(backend, sp, block_bytes),
                                StateCarrying::kLastToFirst);
}

}  // namespace lasp::worker
