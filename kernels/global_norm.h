// Sum of squares in fp64, for the global gradient norm.
#pragma once

#include <cstdint>

namespace lasp::kernels {

// The result is added to *sum. It is NaN or infinite when any value is; the squares of finite fp32
// values cannot overflow fp64, so a finite result says that every value is finite.
template <typename T>
struct SumOfSquaresArgs {
  int64_t count = 0;
  const T* values = nullptr;
  double* sum = nullptr;  // added to
};

namespace cpu {

// Sums pieces of fixed size in order: the result does not depend on the number of threads.
template <typename T>
void SumOfSquares(const SumOfSquaresArgs<T>& args);

}  // namespace cpu
}  // namespace lasp::kernels
