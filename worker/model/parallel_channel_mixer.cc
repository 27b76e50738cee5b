#include "worker/model/parallel_channel_mixer.h"

#include "proto/rpc/status_macros.h"
#include "worker/model/channel_mixer.h"

namespace lasp::worker {

absl::Status ParallelChannelMixer::Forward(const BlockWeights& weights,
                                           BlockActivations& activations, Tensor scratch,
                                           Tensor output) {
  if (tensor_parallel_ == nullptr) {
    ChannelMixerForward(backend_, weights, activations, scratch, output);
    return absl::OkStatus();
  }
  BlockActivations whole = activations;
  whole.channel_normed = tensor_parallel_->Whole(0, output.rows);
  LASP_RETURN_IF_ERROR(tensor_parallel_->Gather(activations.channel_normed, whole.channel_normed));
  const Tensor part = tensor_parallel_->Whole(1, output.rows);
  ChannelMixerForward(backend_, weights, whole, scratch, part);
  return tensor_parallel_->ScatterSum(part, output);
}

absl::Status ParallelChannelMixer::Recompute(const BlockWeights& weights,
                                             BlockActivations& activations) {
  BlockActivations whole = activations;
  if (tensor_parallel_ != nullptr) {
    whole.channel_normed = tensor_parallel_->Whole(0, activations.channel_normed.rows);
    LASP_RETURN_IF_ERROR(
        tensor_parallel_->Gather(activations.channel_normed, whole.channel_normed));
  }
  ChannelMixerRecompute(backend_, weights, whole);
  return absl::OkStatus();
}

absl::Status ParallelChannelMixer::Backward(const BlockWeights& weights,
                                            const BlockActivations& activations,
                                            Tensor output_gradient, Tensor scratch,
                                            BlockWeights& gradients, bool adds,
                                            Tensor input_gradient) {
  if (tensor_parallel_ == nullptr) {
    ChannelMixerBackward(backend_, weights, activations, output_gradient, scratch, gradients, adds,
                         input_gradient);
    return absl::OkStatus();
  }
  const Tensor gradient = tensor_parallel_->Whole(0, output_gradient.rows);
  BlockActivations whole = activations;
  whole.channel_normed = tensor_parallel_->Whole(1, output_gradient.rows);
  tensor_parallel_->BeginGather(output_gradient, gradient);
  LASP_RETURN_IF_ERROR(tensor_parallel_->Gather(activations.channel_normed, whole.channel_normed));
  // The gradient of the output is not read any more when that of the input is written.
  ChannelMixerBackward(backend_, weights, whole, gradient, scratch, gradients, adds, gradient);
  return tensor_parallel_->ScatterSum(gradient, input_gradient);
}

}  // namespace lasp::worker
