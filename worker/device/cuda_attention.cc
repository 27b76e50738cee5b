#include "worker/device/cuda_attention.h"

#include "kernels/cuda/linear_attention.h"
#include "worker/device/cuda_tensors.h"

namespace lasp::worker {

namespace cuda = ::lasp::kernels::cuda;
using cuda_tensors::HeadsIn;
using cuda_tensors::HeadsOut;
using cuda_tensors::In;
using cuda_tensors::Out;
using cuda_tensors::ProblemOf;

namespace {

// While memory is being planned slopes and theta have no place yet; that they exist is what counts.
cuda::LinearAttentionProblem PlannedProblem(const AttentionShape& shape) {
  static constexpr double kAny = 0;
  cuda::LinearAttentionProblem problem = ProblemOf(shape);
  problem.shape.slopes = &kAny;
  problem.shape.theta = shape.lrpe ? &kAny : nullptr;
  return problem;
}

}  // namespace

int64_t CudaAttention::SavedStateCount(const AttentionShape& shape) const {
  return cuda::SegmentCount(PlannedProblem(shape));
}

int64_t CudaAttention::AttentionWorkspaceBytes(const AttentionShape& shape) {
  return shape.lrpe ? cuda::ThetaGradientWorkspaceElements(PlannedProblem(shape)) *
                          static_cast<int64_t>(sizeof(float))
                    : CudaLinearTransformer::WorkspaceBytes(shape);
}

void CudaAttention::LocalState(const AttentionShape& shape, Tensor k, Tensor v, Tensor state,
                               Tensor saved_states) {
  context().Check(cuda::LocalState({.problem = ProblemOf(shape),
                                    .k = HeadsIn(shape, k),
                                    .v = HeadsIn(shape, v),
                                    .segment_states = Out<float>(saved_states),
                                    .state = Out<float>(state)},
                                   context().stream()),
                  "the local state of attention");
}

void CudaAttention::BeginOutput(const AttentionShape& /*shape*/,
                                const AttentionForward& /*tensors*/) {}

void CudaAttention::EndOutput(const AttentionShape& shape, const AttentionForward& tensors) {
  context().Check(cuda::Output({.problem = ProblemOf(shape),
                                .q = HeadsIn(shape, tensors.q),
                                .k = HeadsIn(shape, tensors.k),
                                .v = HeadsIn(shape, tensors.v),
                                .segment_states = In<float>(tensors.saved_states),
                                .state_in = In<float>(tensors.state_in),
                                .output = HeadsOut(shape, tensors.output),
                                .segment_starts = Out<float>(tensors.saved_states)},
                               context().stream()),
                  "the output of attention");
}

void CudaAttention::LocalStateGradient(const AttentionShape& shape, Tensor q,
                                       Tensor output_gradient, Tensor state_gradient,
                                       Tensor saved_gradients) {
  context().Check(cuda::LocalStateGradient({.problem = ProblemOf(shape),
                                            .q = HeadsIn(shape, q),
                                            .output_gradient = HeadsIn(shape, output_gradient),
                                            .segment_state_gradients = Out<float>(saved_gradients),
                                            .state_gradient = Out<float>(state_gradient)},
                                           context().stream()),
                  "the gradient of attention's local state");
}

void CudaAttention::BeginGradients(const AttentionShape& shape, const AttentionBackward& tensors) {
  context().Check(cuda::QueryGradient({.problem = ProblemOf(shape),
                                       .k = HeadsIn(shape, tensors.k),
                                       .v = HeadsIn(shape, tensors.v),
                                       .output_gradient = HeadsIn(shape, tensors.output_gradient),
                                       .segment_starts = In<float>(tensors.saved_states),
                                       .q_gradient = HeadsOut(shape, tensors.q_gradient)},
                                      context().stream()),
                  "the gradient of attention's queries");
}

void CudaAttention::EndGradients(const AttentionShape& shape, const AttentionBackward& tensors) {
  context().Check(
      cuda::KeyValueGradient({.problem = ProblemOf(shape),
                              .q = HeadsIn(shape, tensors.q),
                              .k = HeadsIn(shape, tensors.k),
                              .v = HeadsIn(shape, tensors.v),
                              .output_gradient = HeadsIn(shape, tensors.output_gradient),
                              .segment_state_gradients = In<float>(tensors.saved_gradients),
                              .state_gradient_in = In<float>(tensors.state_gradient_in),
                              .k_gradient = HeadsOut(shape, tensors.k_gradient),
                              .v_gradient = HeadsOut(shape, tensors.v_gradient)},
                             context().stream()),
      "the gradients of attention's keys and values");
  if (tensors.theta_gradient.empty()) {
    return;
  }
  context().Check(
      cuda::ThetaGradient({.problem = ProblemOf(shape),
                           .q = HeadsIn(shape, tensors.q),
                           .k = HeadsIn(shape, tensors.k),
                           .v = HeadsIn(shape, tensors.v),
                           .output_gradient = HeadsIn(shape, tensors.output_gradient),
                           .segment_starts = In<float>(tensors.saved_states),
                           .segment_state_gradients = In<float>(tensors.saved_gradients),
                           .state_gradient_in = In<float>(tensors.state_gradient_in),
                           .workspace = static_cast<float*>(context().workspace()),
                           .theta_gradient = Out<float>(tensors.theta_gradient)},
                          context().stream()),
      "the gradient of the rotary frequencies");
}

void CudaAttention::StateHop(const AttentionShape& shape, Tensor state_in, Tensor local,
                             Tensor state_out) {
  if (shape.normalised) {
    linear_transformer_.AddStates(shape, state_in, local, state_out);
    return;
  }
  context().Check(cuda::StateHop({.problem = ProblemOf(shape),
                                  .state_in = In<float>(state_in),
                                  .local = In<float>(local),
                                  .state_out = Out<float>(state_out)},
                                 context().stream()),
                  "a hop of attention's state");
}

void CudaAttention::StateGradientHop(const AttentionShape& shape, Tensor state_in, Tensor local,
                                     Tensor state_out) {
  if (shape.normalised) {
    linear_transformer_.AddStates(shape, state_in, local, state_out);
    return;
  }
  context().Check(cuda::StateGradientHop({.problem = ProblemOf(shape),
                                          .state_in = In<float>(state_in),
                                          .local = In<float>(local),
                                          .state_out = Out<float>(state_out)},
                                         context().stream()),
                  "a hop of the gradient of attention's state");
}

}  // namespace lasp::worker
