// The gated product of SGLU, without activation: y = a (.) b.
// Strides are distances in elements between two rows, so that a and b may be the halves of one
// packed projection [rows, a | b] (b = a + width, both strides 2 * width) or two buffers.
#pragma once

#include <cstdint>

namespace lasp::kernels {

template <typename T>
struct GluForwardArgs {
  int64_t rows = 0;
  int64_t width = 0;
  const T* a = nullptr;
  int64_t a_stride = 0;
  const T* b = nullptr;
  int64_t b_stride = 0;
  T* output = nullptr;  // [rows, width], contiguous
};

// da = dy (.) b,  db = dy (.) a; the gradients may overwrite a and b in place. With `product`, the
// forward's output is formed once more, so that it need not be kept.
template <typename T>
struct GluBackwardArgs {
  int64_t rows = 0;
  int64_t width = 0;
  const T* a = nullptr;
  int64_t a_stride = 0;
  const T* b = nullptr;
  int64_t b_stride = 0;
  const T* output_gradient = nullptr;  // dy: [rows, width], contiguous
  T* a_gradient = nullptr;
  int64_t a_gradient_stride = 0;
  T* b_gradient = nullptr;
  int64_t b_gradient_stride = 0;
  T* product = nullptr;  // y: [rows, width], contiguous; may be `output_gradient`; null: not wanted
};

namespace cpu {

template <typename T>
void GluForward(const GluForwardArgs<T>& args);

template <typename T>
void GluBackward(const GluBackwardArgs<T>& args);

}  // namespace cpu
}  // namespace lasp::kernels
