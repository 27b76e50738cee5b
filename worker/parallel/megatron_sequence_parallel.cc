#include <memory>

#include "worker/parallel/sequence_parallel.h"
#include "worker/parallel/softmax_parallel.h"
#include "worker/parallel/sole_rank.h"
#include "worker/parallel/tensor_parallel.h"

namespace lasp::worker {
namespace {

// Each rank computes its heads over the tokens of all ranks, as one rank alone would.
class MegatronSp final : public SequenceParallel {
 public:
  MegatronSp(Backend* backend, Communicator* sp)
      : sp_(*sp),
        alone_(backend),
        attention_(CreateLasp(backend, &alone_)),
        softmax_(CreateGatheredSoftmax(backend, &alone_)),
        tensor_parallel_(backend, sp) {}

  void ExpectAtEnd(const SequenceSlices& last) override {
    tensor_parallel_.ExpectAtEnd(last);
    // As one rank's.
    attention_->ExpectAtEnd({.each = last.each * sp_.size(), .total = last.total});
  }

  // The attention has all tokens of the shape it is given.
  void UseSlices(const SequenceSlices& slices) override { tensor_parallel_.UseSlices(slices); }

  AttentionMemory TakeMemory(const AttentionShape& shape, Arena& arena) override {
    return attention_->TakeMemory(shape, arena);
  }

  void TakeScratch(const AttentionShape& widest, Arena& arena) override {
    attention_->TakeScratch(widest, arena);
  }

  AttentionMemory TakeLocalMemory(const AttentionShape& shape, Arena& arena) override {
    return attention_->TakeLocalMemory(shape, arena);
  }

  void TakeReceivedMemory(const AttentionShape& shape, Arena& arena,
                          AttentionMemory* memory) override {
    attention_->TakeReceivedMemory(shape, arena, memory);
  }

  // Each rank has all tokens of its heads.
  StateCarrying state_carrying() const override { return StateCarrying::kByHead; }

  absl::Status BeginForward(const AttentionShape& shape, const AttentionInputs& inputs,
                            const AttentionMemory& memory) override {
    return attention_->BeginForward(shape, inputs, memory);
  }

  absl::Status EndForward(const AttentionShape& shape, const AttentionInputs& inputs,
                          const AttentionMemory& memory, Tensor output) override {
    return attention_->EndForward(shape, inputs, memory, output);
  }

  absl::Status Recompute(const AttentionShape& shape, const AttentionInputs& inputs,
                         const AttentionMemory& memory, Tensor output) override {
    return attention_->Recompute(shape, inputs, memory, output);
  }

  absl::Status Backward(const AttentionShape& shape, const AttentionInputs& inputs,
                        const AttentionMemory& memory, Tensor output_gradient,
                        const AttentionGradients& gradients) override {
    return attention_->Backward(shape, inputs, memory, output_gradient, gradients);
  }

  absl::Status Finish() override { return attention_->Finish(); }

  TensorParallel* tensor_parallel() override { return &tensor_parallel_; }

  SoftmaxParallel* softmax() override { return softmax_.get(); }

 private:
  Communicator& sp_;
  SoleRank alone_;
  const std::unique_ptr<SequenceParallel> attention_;
  const std::unique_ptr<SoftmaxParallel> softmax_;
  TensorParallel tensor_parallel_;
};

}  // namespace

std::unique_ptr<SequenceParallel> CreateMegatronSp(Backend* backend, Communicator* sp) {
  return backend->split_norm() == nullptr ? nullptr : std::make_unique<MegatronSp>(backend, sp);
}

}  // namespace lasp::worker
