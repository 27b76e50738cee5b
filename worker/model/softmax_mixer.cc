#include "proto/rpc/status_macros.h"
#include "worker/model/token_mixer.h"

namespace lasp::worker {
namespace {

class SoftmaxMixer final : public TokenMixer {
 public:
  SoftmaxMixer(Backend* backend, SoftmaxParallel* attention, double rotary_base)
      : backend_(*backend), attention_(*attention), rotary_base_(rotary_base) {}

  absl::Status Forward(const AttentionShape& shape, const BlockWeights& weights,
                       BlockActivations& activations, Tensor output) override {
    const SoftmaxInputs inputs = InputsOf(activations.qkvu, activations.attention_output.columns);
    const int64_t width = inputs.q.columns;
    // Keys and values go on their way while the queries are formed.
    backend_.Gemm(false, activations.mixer_normed, true,
                  weights.qkvu.Rows(width, inputs.kv.columns), 0, inputs.kv);
    ops().Turn(shape, rotary_base_, /*inverse=*/false, KeysOf(inputs));
    LASP_RETURN_IF_ERROR(attention_.BeginForward(shape, inputs.kv, activations.softmax));
    backend_.Gemm(false, activations.mixer_normed, true, weights.qkvu.Rows(0, width), 0, inputs.q);
    ops().Turn(shape, rotary_base_, /*inverse=*/false, inputs.q);
    LASP_RETURN_IF_ERROR(
        attention_.EndForward(shape, inputs, activations.softmax, activations.attention_output));
    backend_.Gemm(false, activations.attention_output, true, weights.out_proj, 0, output);
    return absl::OkStatus();
  }

  absl::Status States(const AttentionShape& /*shape*/, const BlockWeights& /*weights*/,
                      BlockActivations& /*activations*/) override {
    return absl::UnimplementedError(
        "spec.memory.activations STREAM: a layer of softmax attention has no state to go on from "
        "one macro-chunk to the next");
  }

  // Queries and keys are turned in place, so that nothing of this is cheap to compute again.
  absl::Status Recompute(const AttentionShape& shape, const BlockWeights& weights,
                         Recomputation missing, BlockActivations& activations,
                         Tensor output) override {
    return missing == Recomputation::kBlock ? Forward(shape, weights, activations, output)
                                            : absl::OkStatus();
  }

  absl::Status Backward(const AttentionShape& shape, const BlockWeights& weights,
                        const BlockActivations& activations, Tensor output_gradient,
                        const TokenMixerScratch& scratch, BlockWeights& gradients, bool adds,
                        Tensor input_gradient) override {
    const Tensor packed = scratch.qkvu_gradient;
    const Tensor attention_gradient = scratch.gated_gradient;
    const SoftmaxInputs inputs = InputsOf(activations.qkvu, attention_gradient.columns);
    const SoftmaxInputs input_gradients = InputsOf(packed, attention_gradient.columns);
    LASP_RETURN_IF_ERROR(attention_.BeginBackward(shape, inputs.kv, activations.softmax));
    backend_.Gemm(true, output_gradient, false, activations.attention_output, adds ? 1 : 0,
                  gradients.out_proj);
    backend_.Gemm(false, output_gradient, false, weights.out_proj, 0, attention_gradient);
    LASP_RETURN_IF_ERROR(attention_.EndBackward(shape, inputs, activations.softmax,
                                                activations.attention_output, attention_gradient,
                                                input_gradients));
    ops().Turn(shape, rotary_base_, /*inverse=*/true, input_gradients.q);
    ops().Turn(shape, rotary_base_, /*inverse=*/true, KeysOf(input_gradients));
    backend_.Gemm(true, packed, false, activations.mixer_normed, adds ? 1 : 0, gradients.qkvu);
    backend_.Gemm(false, packed, false, weights.qkvu, 0, input_gradient);
    return absl::OkStatus();
  }

 private:
  SoftmaxOps& ops() { return *backend_.softmax(); }

  // Of a projection, or of its gradient, where queries are so wide.
  static SoftmaxInputs InputsOf(Tensor packed, int64_t width) {
    return {.q = packed.Columns(0, width), .kv = packed.Columns(width, packed.columns - width)};
  }

  static Tensor KeysOf(const SoftmaxInputs& inputs) {
    return inputs.kv.Columns(0, inputs.kv.columns / 2);
  }

  Backend& backend_;
  SoftmaxParallel& attention_;
  const double rotary_base_;
};

}  // namespace

std::unique_ptr<TokenMixer> CreateSoftmaxMixer(Backend* backend, SoftmaxParallel* attention,
                                               double rotary_base) {
  return std::make_unique<SoftmaxMixer>(backend, attention, rotary_base);
}

}  // namespace lasp::worker
