#include "worker/device/cuda_linear_transformer.h"

#include "kernels/cuda/attention_normaliser.h"
#include "kernels/cuda/elu_plus_one.h"
#include "kernels/cuda/sinusoidal_positions.h"
#include "worker/device/cuda_tensors.h"

namespace lasp::worker {

namespace cuda = ::lasp::kernels::cuda;
using cuda_tensors::HeadsIn;
using cuda_tensors::HeadsOut;
using cuda_tensors::In;
using cuda_tensors::Out;

namespace {

kernels::LinearAttentionShape ShapeOf(const AttentionShape& shape) {
  const kernels::cuda::LinearAttentionProblem problem = cuda_tensors::ProblemOf(shape);
  kernels::LinearAttentionShape its = problem.shape;
  its.document_marks = problem.document_marks;
  return its;
}

}  // namespace

int64_t CudaLinearTransformer::WorkspaceBytes(const AttentionShape& shape) {
  return shape.normalised ? cuda::NormaliserWorkspaceElements(ShapeOf(shape)) *
                                static_cast<int64_t>(sizeof(float))
                          : 0;
}

void CudaLinearTransformer::AddPositions(int64_t first_position, int64_t tokens, Tensor x) {
  context_.Check(cuda::AddSinusoidalPositions({.sequences = tokens == 0 ? 0 : x.rows / tokens,
                                               .tokens = tokens,
                                               .width = x.columns,
                                               .first_position = first_position,
                                               .x = Out(x)},
                                              context_.stream()),
                 "adding positions");
}

void CudaLinearTransformer::FeaturesForward(Tensor input, Tensor output) {
  context_.Check(cuda::EluPlusOneForward({.rows = input.rows,
                                          .width = input.columns,
                                          .input = In(input),
                                          .input_stride = input.row_stride,
                                          .output = Out(output),
                                          .output_stride = output.row_stride},
                                         context_.stream()),
                 "the features of queries and keys");
}

void CudaLinearTransformer::FeaturesBackward(Tensor input, Tensor output_gradient,
                                             Tensor input_gradient) {
  context_.Check(cuda::EluPlusOneBackward({.rows = input.rows,
                                           .width = input.columns,
                                           .input = In(input),
                                           .input_stride = input.row_stride,
                                           .output_gradient = In(output_gradient),
                                           .output_gradient_stride = output_gradient.row_stride,
                                           .input_gradient = Out(input_gradient),
                                           .input_gradient_stride = input_gradient.row_stride},
                                          context_.stream()),
                 "the gradient of the features of queries and keys");
}

void CudaLinearTransformer::KeySum(const AttentionShape& shape, Tensor k, Tensor sum) {
  context_.Check(cuda::KeySum({.shape = ShapeOf(shape),
                               .k = HeadsIn(shape, k),
                               .workspace = workspace(),
                               .sum = Out<float>(sum)},
                              context_.stream()),
                 "the sum of keys");
}

void CudaLinearTransformer::Normalise(const AttentionShape& shape, Tensor q, Tensor k,
                                      Tensor sum_in, Tensor output, Tensor denominators) {
  context_.Check(cuda::Normalise({.shape = ShapeOf(shape),
                                  .q = HeadsIn(shape, q),
                                  .k = HeadsIn(shape, k),
                                  .sum_in = In<float>(sum_in),
                                  .output = HeadsOut(shape, output),
                                  .workspace = workspace(),
                                  .denominators = Out<float>(denominators)},
                                 context_.stream()),
                 "normalising attention");
}

void CudaLinearTransformer::SplitGradient(const AttentionShape& shape, Tensor output,
                                          Tensor gradient, Tensor denominators) {
  context_.Check(cuda::SplitGradient({.shape = ShapeOf(shape),
                                      .output = HeadsIn(shape, output),
                                      .gradient = HeadsOut(shape, gradient),
                                      .denominators = Out<float>(denominators)},
                                     context_.stream()),
                 "the gradient of attention's normaliser");
}

void CudaLinearTransformer::QuerySum(const AttentionShape& shape, Tensor q,
                                     Tensor denominator_gradient, Tensor sum) {
  context_.Check(cuda::QuerySum({.shape = ShapeOf(shape),
                                 .q = HeadsIn(shape, q),
                                 .denominator_gradient = In<float>(denominator_gradient),
                                 .workspace = workspace(),
                                 .sum = Out<float>(sum)},
                                context_.stream()),
                 "the gradient of the sum of keys");
}

void CudaLinearTransformer::AddQueryGradients(const AttentionShape& shape, Tensor k,
                                              Tensor denominator_gradient, Tensor sum_in,
                                              Tensor q_gradient) {
  context_.Check(cuda::AddQueryGradients({.shape = ShapeOf(shape),
                                          .k = HeadsIn(shape, k),
                                          .denominator_gradient = In<float>(denominator_gradient),
                                          .sum_in = In<float>(sum_in),
                                          .workspace = workspace(),
                                          .q_gradient = HeadsOut(shape, q_gradient)},
                                         context_.stream()),
                 "the normaliser's gradient of queries");
}

void CudaLinearTransformer::AddKeyGradients(const AttentionShape& shape, Tensor q,
                                            Tensor denominator_gradient, Tensor sum_gradient_in,
                                            Tensor k_gradient) {
  context_.Check(cuda::AddKeyGradients({.shape = ShapeOf(shape),
                                        .q = HeadsIn(shape, q),
                                        .denominator_gradient = In<float>(denominator_gradient),
                                        .sum_gradient_in = In<float>(sum_gradient_in),
                                        .workspace = workspace(),
                                        .k_gradient = HeadsOut(shape, k_gradient)},
                                       context_.stream()),
                 "the normaliser's gradient of keys");
}

void CudaLinearTransformer::AddStates(const AttentionShape& shape, Tensor state_in, Tensor local,
                                      Tensor state_out) {
  context_.Check(cuda::AddNormalisedStates({.shape = ShapeOf(shape),
                                            .count = local.count(),
                                            .state_in = In<float>(state_in),
                                            .local = In<float>(local),
                                            .state_out = Out<float>(state_out)},
                                           context_.stream()),
                 "a hop of attention's state");
}

}  // namespace lasp::worker
