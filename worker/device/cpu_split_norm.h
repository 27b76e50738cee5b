// The CPU behind SplitNormOps.
#pragma once

#include <cstdint>

#include "kernels/split_gated_rms_norm.h"
#include "worker/device/cpu_tensors.h"
#include "worker/device/split_norm_ops.h"

namespace lasp::worker {

template <typename T>
class CpuSplitNorm : public SplitNormOps {
 public:
  void SumsOfSquares(Tensor input, Tensor sums) override {
    kernels::cpu::SplitNormSums<T>({.rows = input.rows,
                                    .width = input.columns,
                                    .input = cpu_tensors::In<T>(input),
                                    .sums = cpu_tensors::Out<T>(sums)});
  }

  void Forward(int64_t whole_width, Tensor input, Tensor gate, Tensor output,
               Tensor inverse_rms) override {
    kernels::cpu::SplitGatedRmsNormForward<T>({.rows = input.rows,
                                               .width = input.columns,
                                               .whole_width = whole_width,
                                               .input = cpu_tensors::In<T>(input),
                                               .gate = cpu_tensors::In<T>(gate),
                                               .gate_stride = gate.row_stride,
                                               .output = cpu_tensors::Out<T>(output),
                                               .inverse_rms = cpu_tensors::Out<T>(inverse_rms)});
  }

  void SumsOfProducts(Tensor input, Tensor gate, Tensor output_gradient, Tensor sums) override {
    kernels::cpu::SplitNormSums<T>({.rows = input.rows,
                                    .width = input.columns,
                                    .input = cpu_tensors::In<T>(input),
                                    .output_gradient = cpu_tensors::In<T>(output_gradient),
                                    .gate = cpu_tensors::In<T>(gate),
                                    .gate_stride = gate.row_stride,
                                    .sums = cpu_tensors::Out<T>(sums)});
  }

  void Backward(int64_t whole_width, Tensor input, Tensor gate, Tensor inverse_rms, Tensor sums,
                Tensor output_gradient, Tensor input_gradient, Tensor gate_gradient) override {
    kernels::cpu::SplitGatedRmsNormBackward<T>(
        {.rows = input.rows,
         .width = input.columns,
         .whole_width = whole_width,
         .input = cpu_tensors::In<T>(input),
         .gate = cpu_tensors::In<T>(gate),
         .gate_stride = gate.row_stride,
         .inverse_rms = cpu_tensors::In<T>(inverse_rms),
         .sums = cpu_tensors::In<T>(sums),
         .output_gradient = cpu_tensors::In<T>(output_gradient),
         .input_gradient = cpu_tensors::Out<T>(input_gradient),
         .gate_gradient = cpu_tensors::Out<T>(gate_gradient),
         .gate_gradient_stride = gate_gradient.row_stride});
  }
};

}  // namespace lasp::worker
