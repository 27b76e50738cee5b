// Element-wise operations on contiguous arrays in device memory, for float, double and Bf16.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace lasp::kernels::cuda {

// x = value
template <typename T>
cudaError_t Fill(int64_t count, double value, T* x, cudaStream_t stream);

// y = y + factor * x
template <typename T>
cudaError_t Axpy(int64_t count, double factor, const T* x, T* y, cudaStream_t stream);

// to = from, rounded to nearest even.
template <typename From, typename To>
cudaError_t Convert(int64_t count, const From* from, To* to, cudaStream_t stream);

}  // namespace lasp::kernels::cuda
