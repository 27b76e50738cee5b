// Element-wise operations on contiguous arrays.
#pragma once

#include <cstdint>

namespace lasp::kernels::cpu {

// x = value
template <typename T>
void Fill(int64_t count, T value, T* x);

// x = factor * x
template <typename T>
void Scale(int64_t count, T factor, T* x);

// y = y + factor * x
template <typename T>
void Axpy(int64_t count, T factor, const T* x, T* y);

// sum = a + b; sum may be a or b.
template <typename T>
void Add(int64_t count, const T* a, const T* b, T* sum);

}  // namespace lasp::kernels::cpu
