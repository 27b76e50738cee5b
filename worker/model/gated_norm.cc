#include "worker/model/gated_norm.h"

#include "proto/rpc/status_macros.h"

namespace lasp::worker {

absl::Status GatedNorm::Forward(Tensor input, Tensor gate, Tensor output, Tensor inverse_rms) {
  if (tensor_parallel_ == nullptr) {
    backend_.GatedRmsNormForward(input, gate, output, inverse_rms);
    return absl::OkStatus();
  }
  SplitNormOps& split = *backend_.split_norm();
  split.SumsOfSquares(input, inverse_rms);
  LASP_RETURN_IF_ERROR(tensor_parallel_->Sum(inverse_rms));
  split.Forward(input.columns * tensor_parallel_->size(), input, gate, output, inverse_rms);
  return absl::OkStatus();
}

absl::Status GatedNorm::Backward(Tensor input, Tensor gate, Tensor inverse_rms,
                                 Tensor output_gradient, Tensor input_gradient,
                                 Tensor gate_gradient) {
  if (tensor_parallel_ == nullptr) {
    backend_.GatedRmsNormBackward(input, gate, inverse_rms, output_gradient, input_gradient,
                                  gate_gradient);
    return absl::OkStatus();
  }
  SplitNormOps& split = *backend_.split_norm();
  const Tensor sums = tensor_parallel_->RowSums(input.rows);
  split.SumsOfProducts(input, gate, output_gradient, sums);
  LASP_RETURN_IF_ERROR(tensor_parallel_->Sum(sums));
  split.Backward(input.columns * tensor_parallel_->size(), input, gate, inverse_rms, sums,
                 output_gradient, input_gradient, gate_gradient);
  return absl::OkStatus();
}

}  // namespace lasp::worker
