// phi(z) = elu(z) + 1 = z + 1 for z > 0, e^z otherwise: the positive features of the Linear
// Transformer's queries and keys (arXiv 2006.16236, equation 7), on a column range of wider rows.
// Strides are distances in elements between two rows.
#pragma once

#include <cstdint>

namespace lasp::kernels {

template <typename T>
struct EluPlusOneForwardArgs {
  int64_t rows = 0;
  int64_t width = 0;
  const T* input = nullptr;  // z: [rows, width]
  int64_t input_stride = 0;
  T* output = nullptr;  // [rows, width]; may be `input` where no backward follows
  int64_t output_stride = 0;
};

// dz = dy for z > 0, dy e^z otherwise
template <typename T>
struct EluPlusOneBackwardArgs {
  int64_t rows = 0;
  int64_t width = 0;
  const T* input = nullptr;  // z, as before the activation
  int64_t input_stride = 0;
  const T* output_gradient = nullptr;  // dy: [rows, width]
  int64_t output_gradient_stride = 0;
  T* input_gradient = nullptr;  // dz: [rows, width]; may be `output_gradient`
  int64_t input_gradient_stride = 0;
};

namespace cpu {

template <typename T>
void EluPlusOneForward(const EluPlusOneForwardArgs<T>& args);

template <typename T>
void EluPlusOneBackward(const EluPlusOneBackwardArgs<T>& args);

}  // namespace cpu
}  // namespace lasp::kernels
