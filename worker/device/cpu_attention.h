// The CPU behind the device seam: linear attention.
#pragma once

#include <cstdint>

#include "kernels/left_product_attention.h"
#include "kernels/linear_attention.h"
#include "kernels/vector_ops.h"
#include "worker/device/backend.h"
#include "worker/device/cpu_linear_transformer.h"
#include "worker/device/cpu_softmax.h"
#include "worker/device/cpu_tensors.h"

namespace lasp::worker {

template <typename T>
class CpuLeftProduct final : public LeftProduct {
 public:
  void Output(const AttentionShape& shape, const LeftProductForward& tensors) override {
    kernels::cpu::LeftProductOutput<T>({.shape = cpu_tensors::KernelShape(shape),
                                        .distance = tensors.distance,
                                        .q = cpu_tensors::HeadsIn<T>(shape, tensors.q),
                                        .k = cpu_tensors::HeadsIn<T>(shape, tensors.k),
                                        .v = cpu_tensors::HeadsIn<T>(shape, tensors.v),
                                        .adds = tensors.adds,
                                        .output = cpu_tensors::HeadsOut<T>(shape, tensors.output)});
  }

  void Gradients(const AttentionShape& shape, const LeftProductBackward& tensors) override {
    kernels::cpu::LeftProductGradients<T>(
        {.shape = cpu_tensors::KernelShape(shape),
         .distance = tensors.distance,
         .q = cpu_tensors::HeadsIn<T>(shape, tensors.q),
         .k = cpu_tensors::HeadsIn<T>(shape, tensors.k),
         .v = cpu_tensors::HeadsIn<T>(shape, tensors.v),
         .output_gradient = cpu_tensors::HeadsIn<T>(shape, tensors.output_gradient),
         .adds = tensors.adds,
         .q_gradient = cpu_tensors::HeadsOut<T>(shape, tensors.q_gradient),
         .k_gradient = cpu_tensors::HeadsOut<T>(shape, tensors.k_gradient),
         .v_gradient = cpu_tensors::HeadsOut<T>(shape, tensors.v_gradient),
         .theta_gradient = cpu_tensors::Out<T>(tensors.theta_gradient)});
  }
};

template <typename T>
class CpuAttention : public Backend {
 public:
  int64_t SavedStateCount(const AttentionShape& shape) const override {
    return kernels::BlockCount(cpu_tensors::KernelShape(shape));
  }

  void LocalState(const AttentionShape& shape, Tensor k, Tensor v, Tensor state,
                  Tensor saved_states) override {
    kernels::cpu::LocalState<T>({.shape = cpu_tensors::KernelShape(shape),
                                 .k = cpu_tensors::HeadsIn<T>(shape, k),
                                 .v = cpu_tensors::HeadsIn<T>(shape, v),
                                 .state = cpu_tensors::Out<T>(state),
                                 .block_states = cpu_tensors::Out<T>(saved_states)});
  }

  void BeginOutput(const AttentionShape& shape, const AttentionForward& tensors) override {
    kernels::cpu::IntraOutput<T>({.shape = cpu_tensors::KernelShape(shape),
                                  .q = cpu_tensors::HeadsIn<T>(shape, tensors.q),
                                  .k = cpu_tensors::HeadsIn<T>(shape, tensors.k),
                                  .v = cpu_tensors::HeadsIn<T>(shape, tensors.v),
                                  .block_states = cpu_tensors::In<T>(tensors.saved_states),
                                  .output = cpu_tensors::HeadsOut<T>(shape, tensors.output)});
  }

  void EndOutput(const AttentionShape& shape, const AttentionForward& tensors) override {
    if (tensors.state_in.empty()) {
      return;
    }
    kernels::cpu::AddInterOutput<T>({.shape = cpu_tensors::KernelShape(shape),
                                     .q = cpu_tensors::HeadsIn<T>(shape, tensors.q),
                                     .state_in = cpu_tensors::In<T>(tensors.state_in),
                                     .output = cpu_tensors::HeadsOut<T>(shape, tensors.output)});
  }

  void LocalStateGradient(const AttentionShape& shape, Tensor q, Tensor output_gradient,
                          Tensor state_gradient, Tensor saved_gradients) override {
    kernels::cpu::LocalStateGradient<T>(
        {.shape = cpu_tensors::KernelShape(shape),
         .q = cpu_tensors::HeadsIn<T>(shape, q),
         .output_gradient = cpu_tensors::HeadsIn<T>(shape, output_gradient),
         .state_gradient = cpu_tensors::Out<T>(state_gradient),
         .block_state_gradients = cpu_tensors::Out<T>(saved_gradients)});
  }

  void BeginGradients(const AttentionShape& shape, const AttentionBackward& tensors) override {
    kernels::cpu::IntraGradients<T>(
        {.shape = cpu_tensors::KernelShape(shape),
         .q = cpu_tensors::HeadsIn<T>(shape, tensors.q),
         .k = cpu_tensors::HeadsIn<T>(shape, tensors.k),
         .v = cpu_tensors::HeadsIn<T>(shape, tensors.v),
         .output_gradient = cpu_tensors::HeadsIn<T>(shape, tensors.output_gradient),
         .block_states = cpu_tensors::In<T>(tensors.saved_states),
         .block_state_gradients = cpu_tensors::In<T>(tensors.saved_gradients),
         .q_gradient = cpu_tensors::HeadsOut<T>(shape, tensors.q_gradient),
         .k_gradient = cpu_tensors::HeadsOut<T>(shape, tensors.k_gradient),
         .v_gradient = cpu_tensors::HeadsOut<T>(shape, tensors.v_gradient),
         .theta_gradient = cpu_tensors::Out<T>(tensors.theta_gradient)});
    if (tensors.state_in.empty()) {
      return;
    }
    kernels::cpu::AddInterQueryGradients<T>(
        {.shape = cpu_tensors::KernelShape(shape),
         .q = cpu_tensors::HeadsIn<T>(shape, tensors.q),
         .output_gradient = cpu_tensors::HeadsIn<T>(shape, tensors.output_gradient),
         .state_in = cpu_tensors::In<T>(tensors.state_in),
         .q_gradient = cpu_tensors::HeadsOut<T>(shape, tensors.q_gradient),
         .theta_gradient = cpu_tensors::Out<T>(tensors.theta_gradient)});
  }

  void EndGradients(const AttentionShape& shape, const AttentionBackward& tensors) override {
    if (tensors.state_gradient_in.empty()) {
      return;
    }
    kernels::cpu::AddInterKeyValueGradients<T>(
        {.shape = cpu_tensors::KernelShape(shape),
         .k = cpu_tensors::HeadsIn<T>(shape, tensors.k),
         .v = cpu_tensors::HeadsIn<T>(shape, tensors.v),
         .state_gradient_in = cpu_tensors::In<T>(tensors.state_gradient_in),
         .k_gradient = cpu_tensors::HeadsOut<T>(shape, tensors.k_gradient),
         .v_gradient = cpu_tensors::HeadsOut<T>(shape, tensors.v_gradient),
         .state_in = cpu_tensors::In<T>(tensors.state_in),
         .theta_gradient = cpu_tensors::Out<T>(tensors.theta_gradient)});
  }

  void StateHop(const AttentionShape& shape, Tensor state_in, Tensor local,
                Tensor state_out) override {
    if (shape.normalised) {
      AddStates(shape, state_in, local, state_out);
      return;
    }
    kernels::cpu::StateHop<T>({.shape = cpu_tensors::KernelShape(shape),
                               .state_in = cpu_tensors::In<T>(state_in),
                               .local = cpu_tensors::In<T>(local),
                               .state_out = cpu_tensors::Out<T>(state_out)});
  }

  void StateGradientHop(const AttentionShape& shape, Tensor state_in, Tensor local,
                        Tensor state_out) override {
    if (shape.normalised) {
      AddStates(shape, state_in, local, state_out);
      return;
    }
    kernels::cpu::StateGradientHop<T>({.shape = cpu_tensors::KernelShape(shape),
                                       .state_in = cpu_tensors::In<T>(state_in),
                                       .local = cpu_tensors::In<T>(local),
                                       .state_out = cpu_tensors::Out<T>(state_out)});
  }

  LeftProduct* left_product() override { return &left_product_; }

  LinearTransformerOps* linear_transformer() override { return &linear_transformer_; }

  SoftmaxOps* softmax() override { return &softmax_; }

 private:
  // Without decay, and with nothing to turn.
  void AddStates(const AttentionShape& shape, Tensor state_in, Tensor local, Tensor state_out) {
    if (!state_in.empty() && !shape.document_marks.empty()) {
      kernels::LinearAttentionShape part = cpu_tensors::KernelShape(shape);
      HopPart(part, state_in, local, state_out);
      // A sum of keys is a state of one row.
      part.key_size = 1;
      HopPart(part, shape.KeySumsOf(state_in), shape.KeySumsOf(local), shape.KeySumsOf(state_out));
    } else if (!state_in.empty()) {
      kernels::cpu::Add(local.count(), cpu_tensors::In<T>(state_in), cpu_tensors::In<T>(local),
                        cpu_tensors::Out<T>(state_out));
    } else if (state_out.data != local.data) {
      this->Copy(local, state_out);
    }
  }

  static void HopPart(const kernels::LinearAttentionShape& shape, Tensor state_in, Tensor local,
                      Tensor state_out) {
    kernels::cpu::StateHop<T>({.shape = shape,
                               .state_in = cpu_tensors::In<T>(state_in),
                               .local = cpu_tensors::In<T>(local),
                               .state_out = cpu_tensors::Out<T>(state_out)});
  }

  CpuLeftProduct<T> left_product_;
  CpuLinearTransformer<T> linear_transformer_;
  CpuSoftmax<T> softmax_;
};

}  // namespace lasp::worker
