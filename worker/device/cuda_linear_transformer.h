// A GPU behind the device seam: what Linear Transformers need.
#pragma once

#include <cstdint>

#include "worker/device/backend.h"
#include "worker/device/cuda_context.h"
#include "worker/device/linear_transformer_ops.h"

namespace lasp::worker {

class CudaLinearTransformer final : public LinearTransformerOps {
 public:
  // `context` must outlive the object.
  explicit CudaLinearTransformer(CudaContext* context) : context_(*context) {}

  // What the operations below need besides their operands.
  static int64_t WorkspaceBytes(const AttentionShape& shape);

  void AddPositions(int64_t first_position, int64_t tokens, Tensor x) override;
  void FeaturesForward(Tensor input, Tensor output) override;
  void FeaturesBackward(Tensor input, Tensor output_gradient, Tensor input_gradient) override;
  void KeySum(const AttentionShape& shape, Tensor k, Tensor sum) override;
  void Normalise(const AttentionShape& shape, Tensor q, Tensor k, Tensor sum_in, Tensor output,
                 Tensor denominators) override;
  void SplitGradient(const AttentionShape& shape, Tensor output, Tensor gradient,
                     Tensor denominators) override;
  void QuerySum(const AttentionShape& shape, Tensor q, Tensor denominator_gradient,
                Tensor sum) override;
  void AddQueryGradients(const AttentionShape& shape, Tensor k, Tensor denominator_gradient,
                         Tensor sum_in, Tensor q_gradient) override;
  void AddKeyGradients(const AttentionShape& shape, Tensor q, Tensor denominator_gradient,
                       Tensor sum_gradient_in, Tensor k_gradient) override;

  // A hop of a normalised layer's states (Backend::StateHop).
  void AddStates(const AttentionShape& shape, Tensor state_in, Tensor local, Tensor state_out);

 private:
  float* workspace() const { return static_cast<float*>(context_.workspace()); }

  CudaContext& context_;
};

}  // namespace lasp::worker
