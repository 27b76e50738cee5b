#include "tests/bench/ablation/ablated_lasp.h"

#include <algorithm>
#include <utility>

#include "proto/rpc/status_macros.h"
#include "worker/device/arena.h"
#include "worker/parallel/state_passing.h"

namespace lasp::bench {
namespace {

using worker::Arena;
using worker::AttentionBackward;
using worker::AttentionForward;
using worker::AttentionGradients;
using worker::AttentionInputs;
using worker::AttentionMemory;
using worker::AttentionShape;
using worker::Backend;
using worker::Communicator;
using worker::MemoryUse;
using worker::SequenceSlices;
using worker::StateFlowEnds;
using worker::StatePassing;
using worker::Tensor;

class AblatedLasp final : public worker::SequenceParallel {
 public:
  AblatedLasp(Backend* backend, Communicator* sp, const Ablation& ablation, AddDecayed add_decayed)
      : backend_(*backend),
        sp_(*sp),
        ablation_(ablation),
        add_decayed_(std::move(add_decayed)),
        passing_(worker::CreateRingPassing(backend, sp)) {}

  AttentionMemory TakeMemory(const AttentionShape& shape, Arena& arena) override {
    AttentionMemory memory;
    if (ablation_.cached) {
      memory.saved_states = Take(arena, SavedRows(shape), shape.head_size);
      memory.state_in_place = Take(arena, shape.state_matrix_rows(), shape.head_size);
    }
    return memory;
  }

  void TakeScratch(const AttentionShape& widest, Arena& arena) override {
    AttentionShape narrow = widest;
    narrow.lrpe = false;
    const int64_t saved_rows = std::max(SavedRows(widest), SavedRows(narrow));
    passing_->TakeScratch(widest, arena);
    gradient_in_ = Take(arena, widest.state_matrix_rows(), widest.head_size);
    saved_gradients_ = Take(arena, saved_rows, widest.head_size);
    const auto take_activations = [&](int64_t rows, int64_t columns) {
      return arena.Take(MemoryUse::kActivations, backend_.activation_type(), rows, columns);
    };
    const int64_t rows = widest.batch * widest.tokens;
    const int64_t columns = widest.heads * widest.head_size;
    if (!ablation_.fused) {
      inter_ = take_activations(rows, columns);
      narrow_state_ = take_activations(narrow.state_matrix_rows(), widest.head_size);
    }
    if (!ablation_.cached) {
      saved_states_ = Take(arena, saved_rows, widest.head_size);
      state_in_ = Take(arena, widest.state_matrix_rows(), widest.head_size);
      output_ = take_activations(rows, columns);
    }
  }

  absl::Status BeginForward(const AttentionShape& shape, const AttentionInputs& inputs,
                            const AttentionMemory& memory) override {
    // The layer before may still be reading its local state.
    LASP_RETURN_IF_ERROR(ends_.read.Wait());
    const AttentionMemory own = MemoryOf(shape, memory);
    const Tensor local = passing_->Local(shape);
    backend_.LocalState(shape, inputs.k, inputs.v, local, own.saved_states);
    ends_ = passing_->Start(shape, {.gradient = false,
                                    .slices = SequenceSlices{}.OrEven(shape.tokens, sp_.size()),
                                    .documents = {},
                                    .local = local,
                                    .in = own.state_in,
                                    .in_place = own.state_in_place,
                                    .before = {}});
    return absl::OkStatus();
  }

  absl::Status EndForward(const AttentionShape& shape, const AttentionInputs& inputs,
                          const AttentionMemory& memory, Tensor output) override {
    const AttentionMemory own = MemoryOf(shape, memory);
    const AttentionForward tensors{.q = inputs.q,
                                   .k = inputs.k,
                                   .v = inputs.v,
                                   .saved_states = own.saved_states,
                                   .state_in = Fused(shape) ? own.state_in : Tensor{},
                                   .output = output};
    backend_.BeginOutput(shape, tensors);
    LASP_RETURN_IF_ERROR(ends_.received.Wait());
    backend_.EndOutput(shape, tensors);
    if (!Fused(shape)) {
      AddFromState(shape, inputs.q, own.state_in, /*transposes=*/false, /*from_end=*/false, output);
    }
    return absl::OkStatus();
  }

  absl::Status Backward(const AttentionShape& shape, const AttentionInputs& inputs,
                        const AttentionMemory& memory, Tensor output_gradient,
                        const AttentionGradients& gradients) override {
    if (!ablation_.cached) {
      LASP_RETURN_IF_ERROR(BeginForward(shape, inputs, memory));
      LASP_RETURN_IF_ERROR(
          EndForward(shape, inputs, memory, output_.Rows(0, shape.batch * shape.tokens)));
    }
    LASP_RETURN_IF_ERROR(ends_.read.Wait());
    const AttentionMemory own = MemoryOf(shape, memory);
    const Tensor local = passing_->Local(shape);
    const Tensor saved_gradients = saved_gradients_.Rows(0, SavedRows(shape));
    backend_.LocalStateGradient(shape, inputs.q, output_gradient, local, saved_gradients);
    const Tensor place = gradient_in_.Rows(0, shape.state_matrix_rows());
    const Tensor gradient_in = sp_.rank() == sp_.size() - 1 ? Tensor{} : place;
    ends_ = passing_->Start(shape, {.gradient = true,
                                    .slices = SequenceSlices{}.OrEven(shape.tokens, sp_.size()),
                                    .documents = {},
                                    .local = local,
                                    .in = gradient_in,
                                    .in_place = place,
                                    .before = {}});
    const AttentionBackward tensors{.q = inputs.q,
                                    .k = inputs.k,
                                    .v = inputs.v,
                                    .output_gradient = output_gradient,
                                    .saved_states = own.saved_states,
                                    .saved_gradients = saved_gradients,
                                    .state_in = Fused(shape) ? own.state_in : Tensor{},
                                    .state_gradient_in = Fused(shape) ? gradient_in : Tensor{},
                                    .q_gradient = gradients.q,
                                    .k_gradient = gradients.k,
                                    .v_gradient = gradients.v,
                                    .theta_gradient = gradients.theta};
    backend_.BeginGradients(shape, tensors);
    LASP_RETURN_IF_ERROR(ends_.received.Wait());
    backend_.EndGradients(shape, tensors);
    if (!Fused(shape)) {
      AddFromState(shape, output_gradient, own.state_in, /*transposes=*/true, /*from_end=*/false,
                   gradients.q);
      AddFromState(shape, inputs.v, gradient_in, /*transposes=*/true, /*from_end=*/true,
                   gradients.k);
      AddFromState(shape, inputs.k, gradient_in, /*transposes=*/false, /*from_end=*/true,
                   gradients.v);
    }
    return absl::OkStatus();
  }

  absl::Status Finish() override {
    LASP_RETURN_IF_ERROR(ends_.read.Wait());
    return ends_.sent.Wait();
  }

 private:
  bool Fused(const AttentionShape& shape) const { return ablation_.fused || shape.lrpe; }

  int64_t SavedRows(const AttentionShape& shape) const {
    return shape.product_rows() * backend_.SavedStateCount(shape);
  }

  Tensor Take(Arena& arena, int64_t rows, int64_t columns) const {
    return arena.Take(MemoryUse::kStates, backend_.accumulation_type(), rows, columns);
  }

  // The layer's own, or where none is kept what all share.
  AttentionMemory MemoryOf(const AttentionShape& shape, const AttentionMemory& given) const {
    AttentionMemory memory = given;
    if (!ablation_.cached) {
      memory.saved_states = saved_states_.Rows(0, SavedRows(shape));
      memory.state_in_place = state_in_.Rows(0, shape.state_matrix_rows());
    }
    if (sp_.rank() > 0) {
      memory.state_in = memory.state_in_place;
    }
    return memory;
  }

  // Adds to y each head's rows of x times its state, or the state transposed, decayed.
  void AddFromState(const AttentionShape& shape, Tensor x, Tensor state, bool transposes,
                    bool from_end, Tensor y) {
    if (state.empty()) {
      return;
    }
    const Tensor narrow = narrow_state_.Rows(0, state.rows);
    backend_.Convert(state, narrow);
    const Tensor inter = inter_.Rows(0, shape.batch * shape.tokens);
    for (int64_t sequence = 0; sequence < shape.batch; ++sequence) {
      for (int64_t head = 0; head < shape.heads; ++head) {
        const auto of_head = [&](Tensor tensor) {
          return tensor.Rows(sequence * shape.tokens, shape.tokens)
              .Columns(head * shape.head_size, shape.head_size);
        };
        const Tensor of_state =
            narrow.Rows((sequence * shape.heads + head) * shape.head_size, shape.head_size);
        backend_.Gemm(false, of_head(x), transposes, of_state, 0, of_head(inter));
      }
    }
    add_decayed_(shape, inter, from_end, y);
  }

  Backend& backend_;
  Communicator& sp_;
  const Ablation ablation_;
  const AddDecayed add_decayed_;
  const std::unique_ptr<StatePassing> passing_;
  Tensor gradient_in_;
  Tensor saved_gradients_;
  Tensor inter_;         // where not fused
  Tensor narrow_state_;  // likewise: a state in the activations' type
  Tensor saved_states_;  // where nothing is cached
  Tensor state_in_;
  Tensor output_;
  // The layer's under way.
  StateFlowEnds ends_;
};

}  // namespace

std::unique_ptr<worker::SequenceParallel> CreateAblatedLasp(Backend* backend, Communicator* sp,
                                                            const Ablation& ablation,
                                                            AddDecayed add_decayed) {
  return std::make_unique<AblatedLasp>(backend, sp, ablation, std::move(add_decayed));
}

}  // namespace lasp::bench
