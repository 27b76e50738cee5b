#include "proto/rpc/status_macros.h"
#include "worker/model/token_mixer.h"

namespace lasp::worker {
namespace {

class NormalisedMixer final : public TokenMixer {
 public:
  NormalisedMixer(Backend* backend, SequenceParallel* attention)
      : backend_(*backend), attention_(*attention) {}

  absl::Status Forward(const AttentionShape& shape, const BlockWeights& weights,
                       BlockActivations& activations, Tensor output) override {
    Project(weights, activations);
    ops().FeaturesForward(FeaturesIn(activations), activations.qk);
    const AttentionInputs inputs = InputsOf(activations);
    const AttentionMemory memory = MemoryOf(activations);
    LASP_RETURN_IF_ERROR(attention_.BeginForward(shape, inputs, memory));
    LASP_RETURN_IF_ERROR(
        attention_.EndForward(shape, inputs, memory, activations.attention_output));
    backend_.Gemm(false, activations.attention_output, true, weights.out_proj, 0, output);
    return absl::OkStatus();
  }

  absl::Status States(const AttentionShape& shape, const BlockWeights& weights,
                      BlockActivations& activations) override {
    Project(weights, activations);
    const int64_t hidden = activations.qk.columns / 2;
    AttentionInputs inputs = InputsOf(activations);
    inputs.q = {};
    ops().FeaturesForward(activations.qkvu.Columns(hidden, hidden), inputs.k);
    const AttentionMemory memory = MemoryOf(activations);
    LASP_RETURN_IF_ERROR(attention_.BeginForward(shape, inputs, memory));
    return attention_.EndForward(shape, inputs, memory, Tensor{});
  }

  absl::Status Recompute(const AttentionShape& shape, const BlockWeights& weights,
                         Recomputation missing, BlockActivations& activations,
                         Tensor output) override {
    const bool block = missing == Recomputation::kBlock;
    if (block) {
      Project(weights, activations);
    }
    ops().FeaturesForward(FeaturesIn(activations), activations.qk);
    if (block) {
      LASP_RETURN_IF_ERROR(attention_.Recompute(shape, InputsOf(activations), MemoryOf(activations),
                                                activations.attention_output));
      backend_.Gemm(false, activations.attention_output, true, weights.out_proj, 0, output);
    }
    return absl::OkStatus();
  }

  absl::Status Backward(const AttentionShape& shape, const BlockWeights& weights,
                        const BlockActivations& activations, Tensor output_gradient,
                        const TokenMixerScratch& scratch, BlockWeights& gradients, bool adds,
                        Tensor input_gradient) override {
    const int64_t hidden = activations.qk.columns / 2;
    const Tensor packed = scratch.qkvu_gradient;
    const Tensor attention_gradient = scratch.gated_gradient;
    backend_.Gemm(true, output_gradient, false, activations.attention_output, adds ? 1 : 0,
                  gradients.out_proj);
    backend_.Gemm(false, output_gradient, false, weights.out_proj, 0, attention_gradient);
    LASP_RETURN_IF_ERROR(attention_.Backward(shape, InputsOf(activations), MemoryOf(activations),
                                             attention_gradient,
                                             {.q = packed.Columns(0, hidden),
                                              .k = packed.Columns(hidden, hidden),
                                              .v = packed.Columns(2 * hidden, hidden),
                                              .theta = {}}));
    const Tensor qk_gradient = packed.Columns(0, 2 * hidden);
    ops().FeaturesBackward(FeaturesIn(activations), qk_gradient, qk_gradient);
    backend_.Gemm(true, packed, false, activations.mixer_normed, adds ? 1 : 0, gradients.qkvu);
    backend_.Gemm(false, packed, false, weights.qkvu, 0, input_gradient);
    return absl::OkStatus();
  }

 private:
  LinearTransformerOps& ops() { return *backend_.linear_transformer(); }

  void Project(const BlockWeights& weights, const BlockActivations& activations) {
    backend_.Gemm(false, activations.mixer_normed, true, weights.qkvu, 0, activations.qkvu);
  }

  // Queries and keys before phi.
  static Tensor FeaturesIn(const BlockActivations& activations) {
    return activations.qkvu.Columns(0, activations.qk.columns);
  }

  static AttentionInputs InputsOf(const BlockActivations& activations) {
    const int64_t hidden = activations.qk.columns / 2;
    return {.q = activations.qk.Columns(0, hidden),
            .k = activations.qk.Columns(hidden, hidden),
            .v = activations.qkvu.Columns(2 * hidden, hidden)};
  }

  static AttentionMemory MemoryOf(const BlockActivations& activations) {
    AttentionMemory memory = activations.attention;
    memory.denominators = activations.denominators;
    memory.output = activations.attention_output;
    return memory;
  }

  Backend& backend_;
  SequenceParallel& attention_;
};

}  // namespace

std::unique_ptr<TokenMixer> CreateNormalisedMixer(Backend* backend, SequenceParallel* attention) {
  return std::make_unique<NormalisedMixer>(backend, attention);
}

}  // namespace lasp::worker
