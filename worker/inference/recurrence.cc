#include "worker/inference/recurrence.h"

#include <algorithm>

#include "kernels/linear_attention.h"

namespace lasp::worker {
namespace {

// The most states that the device keeps for a chunk of up to shape.tokens: on a GPU a longer one
// may need fewer.
int64_t MostSavedStates(const Backend& backend, AttentionShape shape) {
  int64_t most = 0;
  const int64_t longest = shape.tokens;
  for (int64_t tokens = kernels::kLinearAttentionBlock;
       tokens < longest + kernels::kLinearAttentionBlock;
       tokens += kernels::kLinearAttentionBlock) {
    shape.tokens = std::min(tokens, longest);
    most = std::max(most, backend.SavedStateCount(shape));
  }
  return most;
}

}  // namespace

void Recurrence::Begin() {
  for (const Tensor& state : states_) {
    backend_.Fill(0, state);
  }
}

AttentionMemory Recurrence::TakeMemory(const AttentionShape& shape, Arena& arena) {
  AttentionMemory memory;
  memory.state_in = arena.Take(MemoryUse::kStates, backend_.accumulation_type(),
                               shape.state_matrix_rows(), shape.head_size);
  if (!memory.state_in.empty()) {
    states_.push_back(memory.state_in);
  }
  return memory;
}

void Recurrence::TakeScratch(const AttentionShape& widest, Arena& arena) {
  local_ = arena.Take(MemoryUse::kStates, backend_.accumulation_type(), widest.state_matrix_rows(),
                      widest.head_size);
  saved_states_ =
      arena.Take(MemoryUse::kStates, backend_.accumulation_type(),
                 widest.product_rows() * MostSavedStates(backend_, widest), widest.head_size);
}

absl::Status Recurrence::BeginForward(const AttentionShape& shape, const AttentionInputs& inputs,
                                      const AttentionMemory& /*memory*/) {
  const Tensor local = local_.Rows(0, shape.state_matrix_rows());
  backend_.LocalState(shape, inputs.k, inputs.v, local, saved_states_);
  if (shape.normalised) {
    backend_.linear_transformer()->KeySum(shape, inputs.k, shape.KeySumsOf(local));
  }
  return absl::OkStatus();
}

absl::Status Recurrence::EndForward(const AttentionShape& shape, const AttentionInputs& inputs,
                                    const AttentionMemory& memory, Tensor output) {
  const AttentionForward tensors{.q = inputs.q,
                                 .k = inputs.k,
                                 .v = inputs.v,
                                 .saved_states = saved_states_,
                                 .state_in = memory.state_in,
                                 .output = output};
  backend_.BeginOutput(shape, tensors);
  backend_.EndOutput(shape, tensors);
  if (shape.normalised) {
    backend_.linear_transformer()->Normalise(
        shape, inputs.q, inputs.k, shape.KeySumsOf(memory.state_in), output, memory.denominators);
  }
  backend_.StateHop(shape, memory.state_in, local_.Rows(0, shape.state_matrix_rows()),
                    memory.state_in);
  return absl::OkStatus();
}

absl::Status Recurrence::Backward(const AttentionShape& /*shape*/,
                                  const AttentionInputs& /*inputs*/,
                                  const AttentionMemory& /*memory*/, Tensor /*output_gradient*/,
                                  const AttentionGradients& /*gradients*/) {
  return absl::UnimplementedError("a recurrence keeps nothing for a backward pass");
}

}  // namespace lasp::worker
