#include "proto/rpc/status_macros.h"
#include "worker/model/gated_norm.h"
#include "worker/model/token_mixer.h"

namespace lasp::worker {
namespace {

class GatedMixer final : public TokenMixer {
 public:
  GatedMixer(Backend* backend, SequenceParallel* attention)
      : backend_(*backend), attention_(*attention), norm_(backend, attention->tensor_parallel()) {}

  absl::Status Forward(const AttentionShape& shape, const BlockWeights& weights,
                       BlockActivations& activations, Tensor output) override {
    const int64_t hidden = activations.gated.columns;
    const AttentionInputs inputs = InputsOf(activations);
    backend_.Gemm(false, activations.mixer_normed, true, weights.qkvu.Rows(0, 3 * hidden), 0,
                  activations.qkvu.Columns(0, 3 * hidden));
    backend_.SiluForward(activations.qkvu.Columns(0, 2 * hidden), activations.qk);
    LASP_RETURN_IF_ERROR(attention_.BeginForward(shape, inputs, activations.attention));
    // The gate's columns of the projection run beside the exchange.
    backend_.Gemm(false, activations.mixer_normed, true, weights.qkvu.Rows(3 * hidden, hidden), 0,
                  activations.qkvu.Columns(3 * hidden, hidden));
    LASP_RETURN_IF_ERROR(
        attention_.EndForward(shape, inputs, activations.attention, activations.attention_output));
    LASP_RETURN_IF_ERROR(norm_.Forward(activations.attention_output,
                                       activations.qkvu.Columns(3 * hidden, hidden),
                                       activations.gated, activations.attention_inverse_rms));
    backend_.Gemm(false, activations.gated, true, weights.out_proj, 0, output);
    return absl::OkStatus();
  }

  absl::Status States(const AttentionShape& shape, const BlockWeights& weights,
                      BlockActivations& activations) override {
    const int64_t hidden = activations.qk.columns / 2;
    backend_.Gemm(false, activations.mixer_normed, true, weights.qkvu.Rows(0, 3 * hidden), 0,
                  activations.qkvu.Columns(0, 3 * hidden));
    AttentionInputs inputs = InputsOf(activations);
    inputs.q = {};
    backend_.SiluForward(activations.qkvu.Columns(hidden, hidden), inputs.k);
    LASP_RETURN_IF_ERROR(attention_.BeginForward(shape, inputs, activations.attention));
    return attention_.EndForward(shape, inputs, activations.attention, Tensor{});
  }

  absl::Status Recompute(const AttentionShape& shape, const BlockWeights& weights,
                         Recomputation missing, BlockActivations& activations,
                         Tensor output) override {
    const int64_t hidden = activations.gated.columns;
    const bool block = missing == Recomputation::kBlock;
    const Tensor gate = activations.qkvu.Columns(3 * hidden, hidden);
    if (block) {
      // Cut as in the forward: other sizes may be summed in another order.
      backend_.Gemm(false, activations.mixer_normed, true, weights.qkvu.Rows(0, 3 * hidden), 0,
                    activations.qkvu.Columns(0, 3 * hidden));
      backend_.Gemm(false, activations.mixer_normed, true, weights.qkvu.Rows(3 * hidden, hidden), 0,
                    gate);
    }
    backend_.SiluForward(activations.qkvu.Columns(0, 2 * hidden), activations.qk);
    if (block) {
      LASP_RETURN_IF_ERROR(attention_.Recompute(shape, InputsOf(activations), activations.attention,
                                                activations.attention_output));
    }
    LASP_RETURN_IF_ERROR(norm_.Forward(activations.attention_output, gate, activations.gated,
                                       activations.attention_inverse_rms));
    if (block) {
      backend_.Gemm(false, activations.gated, true, weights.out_proj, 0, output);
    }
    return absl::OkStatus();
  }

  absl::Status Backward(const AttentionShape& shape, const BlockWeights& weights,
                        const BlockActivations& activations, Tensor output_gradient,
                        const TokenMixerScratch& scratch, BlockWeights& gradients, bool adds,
                        Tensor input_gradient) override {
    const int64_t hidden = activations.gated.columns;
    const Tensor packed = scratch.qkvu_gradient;
    backend_.Gemm(true, output_gradient, false, activations.gated, adds ? 1 : 0,
                  gradients.out_proj);
    backend_.Gemm(false, output_gradient, false, weights.out_proj, 0, scratch.gated_gradient);
    // The gradient of the attention's output replaces that of the gated product.
    const Tensor attention_gradient = scratch.gated_gradient;
    LASP_RETURN_IF_ERROR(norm_.Backward(activations.attention_output,
                                        activations.qkvu.Columns(3 * hidden, hidden),
                                        activations.attention_inverse_rms, scratch.gated_gradient,
                                        attention_gradient, packed.Columns(3 * hidden, hidden)));
    LASP_RETURN_IF_ERROR(attention_.Backward(shape, InputsOf(activations), activations.attention,
                                             attention_gradient,
                                             {.q = packed.Columns(0, hidden),
                                              .k = packed.Columns(hidden, hidden),
                                              .v = packed.Columns(2 * hidden, hidden),
                                              .theta = gradients.theta}));
    const Tensor qk_gradient = packed.Columns(0, 2 * hidden);
    backend_.SiluBackward(activations.qkvu.Columns(0, 2 * hidden), qk_gradient, qk_gradient);
    backend_.Gemm(true, packed, false, activations.mixer_normed, adds ? 1 : 0, gradients.qkvu);
    backend_.Gemm(false, packed, false, weights.qkvu, 0, input_gradient);
    return absl::OkStatus();
  }

 private:
  static AttentionInputs InputsOf(const BlockActivations& activations) {
    const int64_t hidden = activations.qk.columns / 2;
    return {.q = activations.qk.Columns(0, hidden),
            .k = activations.qk.Columns(hidden, hidden),
            .v = activations.qkvu.Columns(2 * hidden, hidden)};
  }

  Backend& backend_;
  SequenceParallel& attention_;
  GatedNorm norm_;
};

}  // namespace

std::unique_ptr<TokenMixer> CreateGatedMixer(Backend* backend, SequenceParallel* attention) {
  return std::make_unique<GatedMixer>(backend, attention);
}

}  // namespace lasp::worker
