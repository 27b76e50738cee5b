// silu(z) = z sigmoid(z) on a column range of wider rows: in TransNormer on q and k, the first two
// of the four parts of the packed projection [rows, q | k | v | u]; v and u pass untouched. Strides
// are distances in elements between two rows.
#pragma once

#include <cstdint>

namespace lasp::kernels {

template <typename T>
struct SiluForwardArgs {
  int64_t rows = 0;
  int64_t width = 0;
  const T* input = nullptr;  // z: [rows, width]
  int64_t input_stride = 0;
  T* output = nullptr;  // [rows, width]; may be `input` where no backward follows
  int64_t output_stride = 0;
};

// dz = dy sigmoid(z) (1 + z (1 - sigmoid(z)))
template <typename T>
struct SiluBackwardArgs {
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
void SiluForward(const SiluForwardArgs<T>& args);

template <typename T>
void SiluBackward(const SiluBackwardArgs<T>& args);

}  // namespace cpu
}  // namespace lasp::kernels
