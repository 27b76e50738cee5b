// A GPU behind the device seam: products, norms, activations, embedding and loss.
#pragma once

#include <memory>
#include <utility>

#include "worker/device/cuda_attention.h"
#include "worker/device/cuda_split_norm.h"

namespace lasp::worker {

class CudaLayers : public CudaAttention {
 public:
  void Gemm(bool transpose_a, Tensor a, bool transpose_b, Tensor b, double beta, Tensor c) override;
  void EmbeddingForward(double scale, Tensor ids, Tensor table, Tensor output) override;
  void EmbeddingBackward(double scale, Tensor ids, Tensor output_gradient,
                         Tensor table_gradient) override;
  void RmsNormForward(Tensor input, Tensor addend, Tensor sum, Tensor output,
                      Tensor inverse_rms) override;
  void RmsNormBackward(Tensor input, Tensor inverse_rms, Tensor output_gradient, Tensor addend,
                       Tensor input_gradient) override;
  void GatedRmsNormForward(Tensor input, Tensor gate, Tensor output, Tensor inverse_rms) override;
  void GatedRmsNormBackward(Tensor input, Tensor gate, Tensor inverse_rms, Tensor output_gradient,
                            Tensor input_gradient, Tensor gate_gradient) override;
  void SiluForward(Tensor input, Tensor output) override;
  void SiluBackward(Tensor input, Tensor output_gradient, Tensor input_gradient) override;
  void GluForward(Tensor a, Tensor b, Tensor output) override;
  void GluBackward(Tensor a, Tensor b, Tensor output_gradient, Tensor a_gradient, Tensor b_gradient,
                   Tensor product) override;
  void CrossEntropy(Tensor logits, Tensor labels, double gradient_scale, Tensor gradient,
                    Tensor loss_sum) override;

  SplitNormOps* split_norm() override { return &split_norm_; }

 protected:
  explicit CudaLayers(std::unique_ptr<CudaContext> context)
      : CudaAttention(std::move(context)), split_norm_(&this->context()) {}

 private:
  CudaSplitNorm split_norm_;
};

}  // namespace lasp::worker
