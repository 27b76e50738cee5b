#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/bfloat16.h"
#include "kernels/cuda/vector_ops.h"

namespace lasp::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kUnroll = 4;

// A group is what one thread moves at a time: 16 bytes of the wider type, where addresses allow it.
template <typename T, int N>
struct alignas(sizeof(T) * N) Group {
  T values[N];
};

// Double only where a double is in play.
template <typename T>
struct Compute {
  using Type = float;
};

template <>
struct Compute<double> {
  using Type = double;
};

struct FillWith {
  template <typename C, typename T>
  __device__ C operator()(C factor, T /*x*/, T /*y*/) const {
    return factor;
  }
};

struct AddScaled {
  template <typename C, typename X, typename Y>
  __device__ C operator()(C factor, X x, Y y) const {
    return static_cast<C>(y) + factor * static_cast<C>(x);
  }
};

struct Copy {
  template <typename C, typename X, typename Y>
  __device__ C operator()(C /*factor*/, X x, Y /*y*/) const {
    return static_cast<C>(x);
  }
};

// y[i] = operation(factor, x[i], y[i]) for `count` groups; x and y are read where told.
template <typename X, typename Y, int N, bool kReadX, bool kReadY, typename C, typename Operation>
__global__ void __launch_bounds__(kThreads)
    map_kernel(int64_t count, C factor, const X* x, Y* y, Operation operation) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads * kUnroll + threadIdx.x;
  Group<X, N> in[kUnroll] = {};
  Group<Y, N> out[kUnroll] = {};
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const int64_t i = first + u * kThreads;
    if (i < count) {
      if constexpr (kReadX) {
        in[u] = reinterpret_cast<const Group<X, N>*>(x)[i];
      }
      if constexpr (kReadY) {
        out[u] = reinterpret_cast<const Group<Y, N>*>(y)[i];
      }
    }
  }
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const int64_t i = first + u * kThreads;
    if (i < count) {
#pragma unroll
      for (int e = 0; e < N; ++e) {
        out[u].values[e] = static_cast<Y>(operation(factor, in[u].values[e], out[u].values[e]));
      }
      reinterpret_cast<Group<Y, N>*>(y)[i] = out[u];
    }
  }
}

template <typename X, typename Y, bool kReadX, bool kReadY, typename Operation>
cudaError_t Map(int64_t count, double factor, const X* x, Y* y, Operation operation,
                cudaStream_t stream) {
  using Wide = std::conditional_t<(sizeof(X) > sizeof(Y)), X, Y>;
  using C = typename Compute<Wide>::Type;
  constexpr int kGroup = 16 / static_cast<int>(sizeof(Wide));
  const auto aligned = [](const auto* pointer) {
    return reinterpret_cast<uintptr_t>(pointer) % (kGroup * sizeof(*pointer)) == 0;
  };
  const int64_t groups = aligned(x) && aligned(y) ? count / kGroup : 0;
  const auto blocks = [](int64_t n) {
    return static_cast<unsigned>((n + kThreads * kUnroll - 1) / (kThreads * kUnroll));
  };
  if (groups > 0) {
    map_kernel<X, Y, kGroup, kReadX, kReadY, C>
        <<<blocks(groups), kThreads, 0, stream>>>(groups, static_cast<C>(factor), x, y, operation);
  }
  const int64_t done = groups * kGroup;
  if (done < count) {
    map_kernel<X, Y, 1, kReadX, kReadY, C><<<blocks(count - done), kThreads, 0, stream>>>(
        count - done, static_cast<C>(factor), x + (kReadX ? done : 0), y + done, operation);
  }
  return cudaGetLastError();
}

}  // namespace

template <typename T>
cudaError_t Fill(int64_t count, double value, T* x, cudaStream_t stream) {
  return Map<T, T, false, false>(count, value, static_cast<const T*>(nullptr), x, FillWith{},
                                 stream);
}

template <typename T>
cudaError_t Axpy(int64_t count, double factor, const T* x, T* y, cudaStream_t stream) {
  return Map<T, T, true, true>(count, factor, x, y, AddScaled{}, stream);
}

template <typename From, typename To>
cudaError_t Convert(int64_t count, const From* from, To* to, cudaStream_t stream) {
  return Map<From, To, true, false>(count, 0, from, to, Copy{}, stream);
}

#define LASP_INSTANTIATE(T)                                                  \
  template cudaError_t Fill<T>(int64_t, double, T*, cudaStream_t);           \
  template cudaError_t Axpy<T>(int64_t, double, const T*, T*, cudaStream_t); \
  template cudaError_t Convert<T>(int64_t, const T*, float*, cudaStream_t);  \
  template cudaError_t Convert<T>(int64_t, const T*, double*, cudaStream_t); \
  template cudaError_t Convert<T>(int64_t, const T*, Bf16*, cudaStream_t)

LASP_INSTANTIATE(float);
LASP_INSTANTIATE(double);
LASP_INSTANTIATE(Bf16);

#undef LASP_INSTANTIATE

}  // namespace lasp::kernels::cuda
