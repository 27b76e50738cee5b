#include "worker/model/channel_mixer.h"

namespace lasp::worker {

void ChannelMixerForward(Backend& backend, const BlockWeights& weights,
                         BlockActivations& activations, Tensor scratch, Tensor output) {
  const int64_t width = scratch.columns;
  ChannelMixerRecompute(backend, weights, activations);
  backend.GluForward(activations.l1_l2.Columns(0, width), activations.l1_l2.Columns(width, width),
                     scratch);
  backend.Gemm(false, scratch, true, weights.l3, 0, output);
}

void ChannelMixerRecompute(Backend& backend, const BlockWeights& weights,
                           BlockActivations& activations) {
  backend.Gemm(false, activations.channel_normed, true, weights.l1_l2, 0, activations.l1_l2);
}

void ChannelMixerBackward(Backend& backend, const BlockWeights& weights,
                          const BlockActivations& activations, Tensor output_gradient,
                          Tensor scratch, BlockWeights& gradients, bool adds,
                          Tensor input_gradient) {
  const int64_t width = scratch.columns;
  const Tensor a = activations.l1_l2.Columns(0, width);
  const Tensor b = activations.l1_l2.Columns(width, width);
  // The product takes the place of its gradient.
  backend.Gemm(false, output_gradient, false, weights.l3, 0, scratch);
  backend.GluBackward(a, b, scratch, a, b, scratch);
  backend.Gemm(true, output_gradient, false, scratch, adds ? 1 : 0, gradients.l3);
  backend.Gemm(true, activations.l1_l2, false, activations.channel_normed, adds ? 1 : 0,
               gradients.l1_l2);
  backend.Gemm(false, activations.l1_l2, false, weights.l1_l2, 0, input_gradient);
}

}  // namespace lasp::worker
