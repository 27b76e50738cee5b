#include <utility>

#include "proto/rpc/status_macros.h"
#include "worker/model/token_mixer.h"
#include "worker/parallel/tensor_parallel.h"

namespace lasp::worker {
namespace {

// The inner mixer sees the tokens of all ranks, and this rank's heads: what it writes is this
// rank's part of a sum.
class TensorParallelMixer final : public TokenMixer {
 public:
  TensorParallelMixer(TensorParallel* tensor_parallel, std::unique_ptr<TokenMixer> inner)
      : tensor_parallel_(*tensor_parallel), inner_(std::move(inner)) {}

  absl::Status Forward(const AttentionShape& shape, const BlockWeights& weights,
                       BlockActivations& activations, Tensor output) override {
    LASP_ASSIGN_OR_RETURN(BlockActivations whole, Gathered(activations));
    const Tensor part = tensor_parallel_.Whole(1, output.rows);
    LASP_RETURN_IF_ERROR(inner_->Forward(shape, weights, whole, part));
    return tensor_parallel_.ScatterSum(part, output);
  }

  absl::Status States(const AttentionShape& shape, const BlockWeights& weights,
                      BlockActivations& activations) override {
    LASP_ASSIGN_OR_RETURN(BlockActivations whole, Gathered(activations));
    return inner_->States(shape, weights, whole);
  }

  absl::Status Recompute(const AttentionShape& shape, const BlockWeights& weights,
                         Recomputation missing, BlockActivations& activations,
                         Tensor output) override {
    if (missing != Recomputation::kBlock) {
      return inner_->Recompute(shape, weights, missing, activations, Tensor{});
    }
    LASP_ASSIGN_OR_RETURN(BlockActivations whole, Gathered(activations));
    const Tensor part = tensor_parallel_.Whole(1, output.rows);
    LASP_RETURN_IF_ERROR(inner_->Recompute(shape, weights, missing, whole, part));
    return tensor_parallel_.ScatterSum(part, output);
  }

  absl::Status Backward(const AttentionShape& shape, const BlockWeights& weights,
                        const BlockActivations& activations, Tensor output_gradient,
                        const TokenMixerScratch& scratch, BlockWeights& gradients, bool adds,
                        Tensor input_gradient) override {
    const Tensor gradient = tensor_parallel_.Whole(0, output_gradient.rows);
    BlockActivations whole = activations;
    whole.mixer_normed = tensor_parallel_.Whole(1, activations.mixer_normed.rows);
    tensor_parallel_.BeginGather(output_gradient, gradient);
    // Gathered once more for the weights' gradients: kept it would take the place of P slices.
    LASP_RETURN_IF_ERROR(tensor_parallel_.Gather(activations.mixer_normed, whole.mixer_normed));
    // The gradient of the output is not read any more when that of the input is written.
    LASP_RETURN_IF_ERROR(
        inner_->Backward(shape, weights, whole, gradient, scratch, gradients, adds, gradient));
    return tensor_parallel_.ScatterSum(gradient, input_gradient);
  }

 private:
  absl::StatusOr<BlockActivations> Gathered(const BlockActivations& activations) {
    BlockActivations whole = activations;
    whole.mixer_normed = tensor_parallel_.Whole(0, activations.mixer_normed.rows);
    LASP_RETURN_IF_ERROR(tensor_parallel_.Gather(activations.mixer_normed, whole.mixer_normed));
    return whole;
  }

  TensorParallel& tensor_parallel_;
  const std::unique_ptr<TokenMixer> inner_;
};

}  // namespace

std::unique_ptr<TokenMixer> CreateTensorParallelMixer(TensorParallel* tensor_parallel,
                                                      std::unique_ptr<TokenMixer> inner) {
  return std::make_unique<TensorParallelMixer>(tensor_parallel, std::move(inner));
}

}  // namespace lasp::worker
