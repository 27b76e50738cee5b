#include "worker/model/token_mixer.h"

#include "proto/rpc/status_macros.h"

namespace lasp::worker {
namespace {

AttentionInputs InputsOf(const BlockActivations& activations) {
  const int64_t hidden = activations.qk.columns / 2;
  return {.q = activations.qk.Columns(0, hidden),
          .k = activations.qk.Columns(hidden, hidden),
          .v = activations.qkvu.Columns(2 * hidden, hidden)};
}

}  // namespace

absl::Status TokenMixerForward(Backend& backend, SequenceParallel& attention,
                               const AttentionShape& shape, const BlockWeights& weights,
                               BlockActivations& activations, Tensor output) {
  const int64_t hidden = output.columns;
  const AttentionInputs inputs = InputsOf(activations);
  backend.Gemm(false, activations.mixer_normed, true, weights.qkvu.Rows(0, 3 * hidden), 0,
               activations.qkvu.Columns(0, 3 * hidden));
  backend.SiluForward(activations.qkvu.Columns(0, 2 * hidden), activations.qk);
  LASP_RETURN_IF_ERROR(attention.BeginForward(shape, inputs, activations.attention));
  // The gate's columns of the projection run beside the exchange.
  backend.Gemm(false, activations.mixer_normed, true, weights.qkvu.Rows(3 * hidden, hidden), 0,
               activations.qkvu.Columns(3 * hidden, hidden));
  LASP_RETURN_IF_ERROR(
      attention.EndForward(shape, inputs, activations.attention, activations.attention_output));
  backend.GatedRmsNormForward(activations.attention_output,
                              activations.qkvu.Columns(3 * hidden, hidden), activations.gated,
                              activations.attention_inverse_rms);
  backend.Gemm(false, activations.gated, true, weights.out_proj, 0, output);
  return absl::OkStatus();
}

absl::Status TokenMixerStates(Backend& backend, SequenceParallel& attention,
                              const AttentionShape& shape, const BlockWeights& weights,
                              BlockActivations& activations) {
  const int64_t hidden = activations.qk.columns / 2;
  backend.Gemm(false, activations.mixer_normed, true, weights.qkvu.Rows(0, 3 * hidden), 0,
               activations.qkvu.Columns(0, 3 * hidden));
  AttentionInputs inputs = InputsOf(activations);
  inputs.q = {};
  backend.SiluForward(activations.qkvu.Columns(hidden, hidden), inputs.k);
  LASP_RETURN_IF_ERROR(attention.BeginForward(shape, inputs, activations.attention));
  return attention.EndForward(shape, inputs, activations.attention, Tensor{});
}

absl::Status TokenMixerRecompute(Backend& backend, SequenceParallel& attention,
                                 const AttentionShape& shape, const BlockWeights& weights,
                                 Recomputation missing, BlockActivations& activations,
                                 Tensor output) {
  const int64_t hidden = activations.gated.columns;
  const bool block = missing == Recomputation::kBlock;
  const Tensor gate = activations.qkvu.Columns(3 * hidden, hidden);
  if (block) {
    // Cut as in the forward: other sizes may be summed in another order.
    backend.Gemm(false, activations.mixer_normed, true, weights.qkvu.Rows(0, 3 * hidden), 0,
                 activations.qkvu.Columns(0, 3 * hidden));
    backend.Gemm(false, activations.mixer_normed, true, weights.qkvu.Rows(3 * hidden, hidden), 0,
                 gate);
  }
  backend.SiluForward(activations.qkvu.Columns(0, 2 * hidden), activations.qk);
  if (block) {
    LASP_RETURN_IF_ERROR(attention.Recompute(shape, InputsOf(activations), activations.attention,
                                             activations.attention_output));
  }
  backend.GatedRmsNormForward(activations.attention_output, gate, activations.gated,
                              activations.attention_inverse_rms);
  if (block) {
    backend.Gemm(false, activations.gated, true, weights.out_proj, 0, output);
  }
  return absl::OkStatus();
}

absl::Status TokenMixerBackward(Backend& backend, SequenceParallel& attention,
                                const AttentionShape& shape, const BlockWeights& weights,
                                const BlockActivations& activations, Tensor output_gradient,
                                const TokenMixerScratch& scratch, BlockWeights& gradients,
                                bool adds, Tensor input_gradient) {
  const int64_t hidden = output_gradient.columns;
  const Tensor packed = scratch.qkvu_gradient;
  backend.Gemm(true, output_gradient, false, activations.gated, adds ? 1 : 0, gradients.out_proj);
  backend.Gemm(false, output_gradient, false, weights.out_proj, 0, scratch.gated_gradient);
  // The gradient of the attention's output replaces that of the gated product.
  const Tensor attention_gradient = scratch.gated_gradient;
  backend.GatedRmsNormBackward(activations.attention_output,
                               activations.qkvu.Columns(3 * hidden, hidden),
                               activations.attention_inverse_rms, scratch.gated_gradient,
                               attention_gradient, packed.Columns(3 * hidden, hidden));
  LASP_RETURN_IF_ERROR(attention.Backward(shape, InputsOf(activations), activations.attention,
                                          attention_gradient,
                                          {.q = packed.Columns(0, hidden),
                                           .k = packed.Columns(hidden, hidden),
                                           .v = packed.Columns(2 * hidden, hidden),
                                           .theta = gradients.theta}));
  const Tensor qk_gradient = packed.Columns(0, 2 * hidden);
  backend.SiluBackward(activations.qkvu.Columns(0, 2 * hidden), qk_gradient, qk_gradient);
  backend.Gemm(true, packed, false, activations.mixer_normed, adds ? 1 : 0, gradients.qkvu);
  backend.Gemm(false, packed, false, weights.qkvu, 0, input_gradient);
  return absl::OkStatus();
}

}  // namespace lasp::worker
