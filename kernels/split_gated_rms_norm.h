// Gated SRMSNorm (kernels/gated_rms_norm.h) of rows that several ranks hold in parts, each the
// columns of its own heads: what a row's norm needs of the other parts is one sum forward and one
// backward, which the ranks add up between two operations.
//   S = sum over all parts of o^2;  r = 1 / sqrt(S / whole_width + epsilon);  y = u (.) o r
//   P = sum over all parts of o (dy (.) u)
//   do = r (dy (.) u) - o r^3 P / whole_width;  du = dy (.) o r
// Strides are distances in elements between two rows.
#pragma once

#include <cstdint>

#include "kernels/rms_norm.h"

namespace lasp::kernels {

// This part of S, or with a gradient of P.
template <typename T, typename R = T>
struct SplitNormSumsArgs {
  int64_t rows = 0;
  int64_t width = 0;         // of this part
  const T* input = nullptr;  // o: [rows, width], contiguous
  // dy: [rows, width], contiguous; null: S is wanted, and there is no gate.
  const T* output_gradient = nullptr;
  const T* gate = nullptr;  // u: [rows, width], gate_stride
  int64_t gate_stride = 0;
  R* sums = nullptr;  // [rows], written
};

template <typename T, typename R = T>
struct SplitGatedRmsNormForwardArgs {
  int64_t rows = 0;
  int64_t width = 0;
  int64_t whole_width = 0;  // of all parts
  double epsilon = kRmsNormEpsilon;
  const T* input = nullptr;
  const T* gate = nullptr;
  int64_t gate_stride = 0;
  T* output = nullptr;       // y: [rows, width], contiguous
  R* inverse_rms = nullptr;  // [rows]: S, of all parts; becomes r
};

template <typename T, typename R = T>
struct SplitGatedRmsNormBackwardArgs {
  int64_t rows = 0;
  int64_t width = 0;
  int64_t whole_width = 0;
  const T* input = nullptr;
  const T* gate = nullptr;
  int64_t gate_stride = 0;
  const R* inverse_rms = nullptr;      // [rows], from the forward
  const R* sums = nullptr;             // [rows]: P, of all parts
  const T* output_gradient = nullptr;  // [rows, width], contiguous
  T* input_gradient = nullptr;         // [rows, width], contiguous; may be `output_gradient`
  T* gate_gradient = nullptr;          // [rows, width], gate_gradient_stride; written
  int64_t gate_gradient_stride = 0;
};

namespace cpu {

template <typename T>
void SplitNormSums(const SplitNormSumsArgs<T>& args);

template <typename T>
void SplitGatedRmsNormForward(const SplitGatedRmsNormForwardArgs<T>& args);

template <typename T>
void SplitGatedRmsNormBackward(const SplitGatedRmsNormBackwardArgs<T>& args);

}  // namespace cpu
}  // namespace lasp::kernels
