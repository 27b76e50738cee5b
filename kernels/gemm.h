// Dense matrix product, row-major.
#pragma once

#include <cstdint>

namespace lasp::kernels {

// C = alpha * op(A) * op(B) + beta * C, with op(A) [m, k], op(B) [k, n] and C [m, n].
// A leading dimension is the distance in elements between two rows as stored: a transposed A is
// stored [k, m], a transposed B [n, k]. C must not overlap A or B. With beta 0, C is not read.
template <typename T>
struct GemmArgs {
  bool transpose_a = false;
  bool transpose_b = false;
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  T alpha = 1;
  const T* a = nullptr;
  int64_t a_stride = 0;  // leading dimension of A
  const T* b = nullptr;
  int64_t b_stride = 0;  // leading dimension of B
  T beta = 0;
  T* c = nullptr;
  int64_t c_stride = 0;  // leading dimension of C
};

namespace cpu {

// Uses the BLAS threads that SetThreads (threads.h) allows. Same inputs, same thread count and same
// CPU model give the same bits.
template <typename T>
void Gemm(const GemmArgs<T>& args);

}  // namespace cpu
}  // namespace lasp::kernels
