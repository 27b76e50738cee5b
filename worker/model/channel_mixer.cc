#include "worker/model/channel_mixer.h"

namespace lasp::worker {

void ChannelMixerForward(Backend& backend, const BlockWeights& weights,
                         BlockActivations& activations, Tensor output) {
  const int64_t width = activations.product.columns;
  backend.Gemm(false, activations.channel_normed, true, weights.l1_l2, 0, activations.l1_l2);
  backend.GluForward(activations.l1_l2.Columns(0, width), activations.l1_l2.Columns(width, width),
                     activations.product);
  backend.Gemm(false, activations.product, true, weights.l3, 0, output);
}

void ChannelMixerBackward(Backend& backend, const BlockWeights& weights,
                          const BlockActivations& activations, Tensor output_gradient,
                          Tensor product_gradient, BlockWeights& gradients, Tensor input_gradient) {
  const int64_t width = activations.product.columns;
  const Tensor a = activations.l1_l2.Columns(0, width);
  const Tensor b = activations.l1_l2.Columns(width, width);
  backend.Gemm(true, output_gradient, false, activations.product, 1, gradients.l3);
  backend.Gemm(false, output_gradient, false, weights.l3, 0, product_gradient);
  backend.GluBackward(a, b, product_gradient, a, b);
  backend.Gemm(true, activations.l1_l2, false, activations.channel_normed, 1, gradients.l1_l2);
  backend.Gemm(false, activations.l1_l2, false, weights.l1_l2, 0, input_gradient);
}

}  // namespace lasp::worker
