// SGLU, the gated MLP of a TransNormer block, without activation:
//   y = ((x W_1^T) (.) (x W_2^T)) W_3^T
#pragma once

#include "worker/device/backend.h"
#include "worker/model/activation_plan.h"
#include "worker/model/parameter_layout.h"

namespace lasp::worker {

// Reads activations.channel_normed, writes l1_l2 and product and output [N, D].
void ChannelMixerForward(Backend& backend, const BlockWeights& weights,
                         BlockActivations& activations, Tensor output);

// Adds to the gradients of the weights and writes input_gradient [N, D], the gradient of
// channel_normed. Overwrites activations.l1_l2. product_gradient: scratch [N, G].
void ChannelMixerBackward(Backend& backend, const BlockWeights& weights,
                          const BlockActivations& activations, Tensor output_gradient,
                          Tensor product_gradient, BlockWeights& gradients, Tensor input_gradient);

}  // namespace lasp::worker
