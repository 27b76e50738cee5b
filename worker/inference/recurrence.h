// One process takes sequences chunk by chunk, each from the states in which the one before left
// the layers: memory does not depend on the length.
#pragma once

#include <memory>
#include <vector>

#include "worker/device/arena.h"
#include "worker/device/backend.h"
#include "worker/parallel/sequence_parallel.h"

namespace lasp::worker {

// Forward only. Not thread-safe.
class Recurrence : public SequenceParallel {
 public:
  explicit Recurrence(Backend* backend) : backend_(*backend) {}

  // The next chunk begins new sequences: every layer's state is zeros.
  void Begin();

  // AttentionMemory.state_in holds the layer's state from chunk to chunk; saved_states is empty.
  // Shapes of forwards have the batch of `shape` and at most its tokens.
  AttentionMemory TakeMemory(const AttentionShape& shape, Arena& arena) override;
  void TakeScratch(const AttentionShape& widest, Arena& arena) override;

  absl::Status BeginForward(const AttentionShape& shape, const AttentionInputs& inputs,
                            const AttentionMemory& memory) override;
  // Leaves the state after the chunk in memory.state_in.
  absl::Status EndForward(const AttentionShape& shape, const AttentionInputs& inputs,
                          const AttentionMemory& memory, Tensor output) override;
  // UNIMPLEMENTED: what a backward needs is not kept.
  absl::Status Backward(const AttentionShape& shape, const AttentionInputs& inputs,
                        const AttentionMemory& memory, Tensor output_gradient,
                        const AttentionGradients& gradients) override;

  absl::Status Finish() override { return absl::OkStatus(); }

 private:
  Backend& backend_;
  // Of all layers.
  std::vector<Tensor> states_;
  // Of the layer under way.
  Tensor local_;
  Tensor saved_states_;
};

}  // namespace lasp::worker
