// The gate of gated linear attention: y = u (.) SRMSNorm(o), over whole rows (all heads together).
// Strides are distances in elements between two rows, so that u may be a column range of the packed
// projection [rows, q | k | v | u].
#pragma once

#include <cstdint>

#include "kernels/rms_norm.h"

namespace lasp::kernels {

template <typename T, typename R = T>
struct GatedRmsNormForwardArgs {
  int64_t rows = 0;
  int64_t width = 0;
  double epsilon = kRmsNormEpsilon;
  const T* input = nullptr;  // o: [rows, width], contiguous
  const T* gate = nullptr;   // u: [rows, width], gate_stride
  int64_t gate_stride = 0;
  T* output = nullptr;  // y: [rows, width], contiguous; may be `input` where no backward follows
  R* inverse_rms = nullptr;  // [rows]; may be null
};

template <typename T, typename R = T>
struct GatedRmsNormBackwardArgs {
  int64_t rows = 0;
  int64_t width = 0;
  const T* input = nullptr;  // o, as in the forward
  const T* gate = nullptr;   // u, as in the forward
  int64_t gate_stride = 0;
  const R* inverse_rms = nullptr;      // [rows], from the forward
  const T* output_gradient = nullptr;  // dy: [rows, width], contiguous
  T* input_gradient = nullptr;         // do: [rows, width], contiguous; may be `output_gradient`
  T* gate_gradient = nullptr;          // du: [rows, width], gate_gradient_stride; written
  int64_t gate_gradient_stride = 0;
};

namespace cpu {

template <typename T>
void GatedRmsNormForward(const GatedRmsNormForwardArgs<T>& args);

template <typename T>
void GatedRmsNormBackward(const GatedRmsNormBackwardArgs<T>& args);

}  // namespace cpu
}  // namespace lasp::kernels
