// The CPU behind the device seam: what Linear Transformers need.
#pragma once

#include <cstdint>

#include "kernels/attention_normaliser.h"
#include "kernels/elu_plus_one.h"
#include "kernels/sinusoidal_positions.h"
#include "worker/device/cpu_tensors.h"
#include "worker/device/linear_transformer_ops.h"

namespace lasp::worker {

template <typename T>
class CpuLinearTransformer final : public LinearTransformerOps {
 public:
  void AddPositions(int64_t first_position, int64_t tokens, Tensor x) override {
    kernels::cpu::AddSinusoidalPositions<T>({.sequences = x.rows / tokens,
                                             .tokens = tokens,
                                             .width = x.columns,
                                             .first_position = first_position,
                                             .x = cpu_tensors::Out<T>(x)});
  }

  void FeaturesForward(Tensor input, Tensor output) override {
    kernels::cpu::EluPlusOneForward<T>({.rows = input.rows,
                                        .width = input.columns,
                                        .input = cpu_tensors::In<T>(input),
                                        .input_stride = input.row_stride,
                                        .output = cpu_tensors::Out<T>(output),
                                        .output_stride = output.row_stride});
  }

  void FeaturesBackward(Tensor input, Tensor output_gradient, Tensor input_gradient) override {
    kernels::cpu::EluPlusOneBackward<T>({.rows = input.rows,
                                         .width = input.columns,
                                         .input = cpu_tensors::In<T>(input),
                                         .input_stride = input.row_stride,
                                         .output_gradient = cpu_tensors::In<T>(output_gradient),
                                         .output_gradient_stride = output_gradient.row_stride,
                                         .input_gradient = cpu_tensors::Out<T>(input_gradient),
                                         .input_gradient_stride = input_gradient.row_stride});
  }

  void KeySum(const AttentionShape& shape, Tensor k, Tensor sum) override {
    kernels::cpu::KeySum<T>({.shape = cpu_tensors::KernelShape(shape),
                             .k = cpu_tensors::HeadsIn<T>(shape, k),
                             .sum = cpu_tensors::Out<T>(sum)});
  }

  void Normalise(const AttentionShape& shape, Tensor q, Tensor k, Tensor sum_in, Tensor output,
                 Tensor denominators) override {
    kernels::cpu::Normalise<T>({.shape = cpu_tensors::KernelShape(shape),
                                .q = cpu_tensors::HeadsIn<T>(shape, q),
                                .k = cpu_tensors::HeadsIn<T>(shape, k),
                                .sum_in = cpu_tensors::In<T>(sum_in),
                                .output = cpu_tensors::HeadsOut<T>(shape, output),
                                .denominators = cpu_tensors::Out<T>(denominators)});
  }

  void SplitGradient(const AttentionShape& shape, Tensor output, Tensor gradient,
                     Tensor denominators) override {
    kernels::cpu::SplitGradient<T>({.shape = cpu_tensors::KernelShape(shape),
                                    .output = cpu_tensors::HeadsIn<T>(shape, output),
                                    .gradient = cpu_tensors::HeadsOut<T>(shape, gradient),
                                    .denominators = cpu_tensors::Out<T>(denominators)});
  }

  void QuerySum(const AttentionShape& shape, Tensor q, Tensor denominator_gradient,
                Tensor sum) override {
    kernels::cpu::QuerySum<T>({.shape = cpu_tensors::KernelShape(shape),
                               .q = cpu_tensors::HeadsIn<T>(shape, q),
                               .denominator_gradient = cpu_tensors::In<T>(denominator_gradient),
                               .sum = cpu_tensors::Out<T>(sum)});
  }

  void AddQueryGradients(const AttentionShape& shape, Tensor k, Tensor denominator_gradient,
                         Tensor sum_in, Tensor q_gradient) override {
    kernels::cpu::AddQueryGradients<T>(
        {.shape = cpu_tensors::KernelShape(shape),
         .k = cpu_tensors::HeadsIn<T>(shape, k),
         .denominator_gradient = cpu_tensors::In<T>(denominator_gradient),
         .sum_in = cpu_tensors::In<T>(sum_in),
         .q_gradient = cpu_tensors::HeadsOut<T>(shape, q_gradient)});
  }

  void AddKeyGradients(const AttentionShape& shape, Tensor q, Tensor denominator_gradient,
                       Tensor sum_gradient_in, Tensor k_gradient) override {
    kernels::cpu::AddKeyGradients<T>(
        {.shape = cpu_tensors::KernelShape(shape),
         .q = cpu_tensors::HeadsIn<T>(shape, q),
         .denominator_gradient = cpu_tensors::In<T>(denominator_gradient),
         .sum_gradient_in = cpu_tensors::In<T>(sum_gradient_in),
         .k_gradient = cpu_tensors::HeadsOut<T>(shape, k_gradient)});
  }
};

}  // namespace lasp::worker
