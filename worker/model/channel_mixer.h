// SGLU, the gated MLP of a TransNormer block, without activation:
//   y = ((x W_1^T) (.) (x W_2^T)) W_3^T
#pragma once

#include "worker/device/backend.h"
#include "worker/model/activation_plan.h"
#include "worker/model/parameter_layout.h"

namespace lasp::worker {

// Reads activations.channel_normed, writes l1_l2 and output [N, D]. scratch: [N, G]; the gated
// product is not kept: forming it once more costs the backward little.
void ChannelMixerForward(Backend& backend, const BlockWeights& weights,
                         BlockActivations& activations, Tensor scratch, Tensor output);

// Writes l1_l2 once more, from channel_normed.
void ChannelMixerRecompute(Backend& backend, const BlockWeights& weights,
                           BlockActivations& activations);

// Writes the gradients of the weights, or `adds` to them, and writes input_gradient [N, D], the
// gradient of channel_normed. Overwrites activations.l1_l2.
void ChannelMixerBackward(Backend& backend, const BlockWeights& weights,
                          const BlockActivations& activations, Tensor output_gradient,
                          Tensor scratch, BlockWeights& gradients, bool adds,
                          Tensor input_gradient);

}  // namespace lasp::worker
