// One attention layer on a local rank, with random inputs, for the tests of the exchange.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "proto/rpc/status_macros.h"
#include "tests/worker/parallel/local_ranks.h"
#include "worker/device/arena.h"
#include "worker/parallel/sequence_parallel.h"

namespace lasp::worker {

class AttentionLayer {
 public:
  static absl::StatusOr<std::unique_ptr<AttentionLayer>> Create(const AttentionShape& shape,
                                                                SequenceParallel* attention,
                                                                Backend* backend) {
    auto layer = std::unique_ptr<AttentionLayer>(new AttentionLayer(shape, attention, backend));
    Arena plan;
    layer->TakeMemory(plan);
    LASP_ASSIGN_OR_RETURN(layer->arena_, Arena::Create(*backend, plan.used_bytes()));
    layer->TakeMemory(layer->arena_);
    layer->FillInputs();
    return layer;
  }

  absl::Status Forward() {
    LASP_RETURN_IF_ERROR(attention_.BeginForward(shape_, inputs_, memory_));
    return attention_.EndForward(shape_, inputs_, memory_, output_);
  }

  // What the parts of the forward work on.
  AttentionForward tensors() const {
    return {.q = inputs_.q,
            .k = inputs_.k,
            .v = inputs_.v,
            .saved_states = memory_.saved_states,
            .state_in = memory_.state_in,
            .output = output_};
  }

  // The output is its own gradient.
  absl::Status Backward() {
    AttentionMemory memory = memory_;
    memory.output = output_;
    return attention_.Backward(shape_, inputs_, memory, output_, gradients_);
  }

  const AttentionShape& shape() const { return shape_; }

  const AttentionInputs& inputs() const { return inputs_; }

  const AttentionMemory& memory() const { return memory_; }

  Tensor output() const { return output_; }

  const AttentionGradients& gradients() const { return gradients_; }

  // All of the layer's memory, to be registered.
  Tensor whole() const { return arena_.whole(); }

 private:
  AttentionLayer(const AttentionShape& shape, SequenceParallel* attention, Backend* backend)
      : shape_(shape), attention_(*attention), backend_(*backend) {}

  void TakeMemory(Arena& arena) {
    const auto take = [&] {
      return arena.Take(MemoryUse::kActivations, backend_.activation_type(),
                        shape_.batch * shape_.tokens, shape_.heads * shape_.head_size);
    };
    shape_.slopes = arena.Take(MemoryUse::kWorkspace, DType::kFloat64, 1, shape_.heads);
    shape_.theta =
        arena.Take(MemoryUse::kWorkspace, DType::kFloat64, shape_.heads, shape_.head_size);
    inputs_ = {.q = take(), .k = take(), .v = take()};
    gradients_ = {.q = take(), .k = take(), .v = take(), .theta = {}};
    output_ = take();
    staged_ = arena.Take(MemoryUse::kWorkspace, DType::kFloat64, 1,
                         shape_.batch * shape_.tokens * shape_.heads * shape_.head_size);
    memory_ = attention_.TakeMemory(shape_, arena);
    memory_.denominators = arena.Take(MemoryUse::kActivations, backend_.accumulation_type(),
                                      shape_.batch * shape_.tokens, shape_.heads);
    attention_.TakeScratch(shape_, arena);
  }

  void FillInputs() {
    std::mt19937 random(11);
    std::normal_distribution<double> normal(0, 0.3);
    std::vector<double> slopes(static_cast<size_t>(shape_.heads));
    for (size_t head = 0; head < slopes.size(); ++head) {
      // As in a last layer: nothing has decayed away at the end of a slice.
      slopes[head] = 1e-5 / static_cast<double>(head + 1);
    }
    backend_.CopyFromHost(slopes.data(), shape_.slopes);
    for (const Tensor& tensor : {inputs_.q, inputs_.k, inputs_.v}) {
      std::vector<double> values(static_cast<size_t>(tensor.count()));
      for (double& value : values) {
        value = normal(random);
      }
      backend_.CopyFromHost(values.data(), staged_);
      backend_.Convert(staged_, tensor.Reshape(1, tensor.count()));
    }
  }

  AttentionShape shape_;
  SequenceParallel& attention_;
  Backend& backend_;
  Arena arena_;
  AttentionInputs inputs_;
  AttentionGradients gradients_;
  AttentionMemory memory_;
  Tensor output_;
  Tensor staged_;  // inputs from the host
};

}  // namespace lasp::worker
