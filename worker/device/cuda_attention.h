// A GPU behind the device seam: attention. Linear attention's output is one pass over the tokens
// that starts from the received state, so that all of it comes after the state; the gradient of the
// queries needs no other rank, and runs while the state's gradient is under way.
#pragma once

#include <memory>
#include <utility>

#include "worker/device/cuda_backend.h"
#include "worker/device/cuda_context.h"
#include "worker/device/cuda_left_product.h"
#include "worker/device/cuda_linear_transformer.h"
#include "worker/device/cuda_softmax.h"

namespace lasp::worker {

class CudaAttention : public CudaBackend {
 public:
  int64_t SavedStateCount(const AttentionShape& shape) const override;
  void LocalState(const AttentionShape& shape, Tensor k, Tensor v, Tensor state,
                  Tensor saved_states) override;
  void BeginOutput(const AttentionShape& shape, const AttentionForward& tensors) override;
  void EndOutput(const AttentionShape& shape, const AttentionForward& tensors) override;
  void LocalStateGradient(const AttentionShape& shape, Tensor q, Tensor output_gradient,
                          Tensor state_gradient, Tensor saved_gradients) override;
  void BeginGradients(const AttentionShape& shape, const AttentionBackward& tensors) override;
  void EndGradients(const AttentionShape& shape, const AttentionBackward& tensors) override;
  void StateHop(const AttentionShape& shape, Tensor state_in, Tensor local,
                Tensor state_out) override;
  void StateGradientHop(const AttentionShape& shape, Tensor state_in, Tensor local,
                        Tensor state_out) override;

  LeftProduct* left_product() override { return &left_product_; }

  LinearTransformerOps* linear_transformer() override { return &linear_transformer_; }

  SoftmaxOps* softmax() override { return softmax_.get(); }

 protected:
  explicit CudaAttention(std::unique_ptr<CudaContext> context)
      : context_(std::move(context)),
        left_product_(context_.get()),
        linear_transformer_(context_.get()),
        softmax_(CreateCudaSoftmax(context_.get())) {}

  CudaContext& context() const { return *context_; }

  // What the operations above need besides their operands.
  static int64_t AttentionWorkspaceBytes(const AttentionShape& shape);

 private:
  const std::unique_ptr<CudaContext> context_;
  CudaLeftProduct left_product_;
  CudaLinearTransformer linear_transformer_;
  const std::unique_ptr<SoftmaxOps> softmax_;  // null where it is not built
};

}  // namespace lasp::worker
