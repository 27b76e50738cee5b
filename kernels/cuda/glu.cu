#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/glu.h"
#include "kernels/cuda/map_rows.cuh"
#include "kernels/cuda/pack.cuh"

namespace lasp::kernels::cuda {
namespace {

template <int N>
__device__ __forceinline__ void StoreProduct(const Bf16Pack<N>& a, const Bf16Pack<N>& b, Bf16* to) {
  float y[N];
#pragma unroll
  for (int i = 0; i < N; ++i) {
    y[i] = a[i] * b[i];
  }
  Bf16Pack<N>::Rounded(y).Store(to);
}

template <int N>
struct Forward {
  struct In {
    Bf16Pack<N> a;
    Bf16Pack<N> b;
  };

  GluForwardArgs<Bf16> args;

  __device__ In Load(int64_t row, int column) const {
    return {Bf16Pack<N>::Load(args.a + row * args.a_stride + column),
            Bf16Pack<N>::Load(args.b + row * args.b_stride + column)};
  }

  __device__ void Store(int64_t row, int column, const In& in) const {
    StoreProduct(in.a, in.b, args.output + row * args.width + column);
  }
};

template <int N>
struct Backward {
  struct In {
    Bf16Pack<N> a;
    Bf16Pack<N> b;
    Bf16Pack<N> d_y;
  };

  GluBackwardArgs<Bf16> args;

  __device__ In Load(int64_t row, int column) const {
    return {Bf16Pack<N>::Load(args.a + row * args.a_stride + column),
            Bf16Pack<N>::Load(args.b + row * args.b_stride + column),
            Bf16Pack<N>::Load(args.output_gradient + row * args.width + column)};
  }

  __device__ void Store(int64_t row, int column, const In& in) const {
    StoreProduct(in.d_y, in.b, args.a_gradient + row * args.a_gradient_stride + column);
    StoreProduct(in.d_y, in.a, args.b_gradient + row * args.b_gradient_stride + column);
    if (args.product != nullptr) {
      StoreProduct(in.a, in.b, args.product + row * args.width + column);
    }
  }
};

}  // namespace

cudaError_t GluForward(const GluForwardArgs<Bf16>& args, cudaStream_t stream) {
  return MapRows(args.rows, args.width,
                 Aligned16(args.a, args.a_stride) && Aligned16(args.b, args.b_stride) &&
                     Aligned16(args.output, args.width),
                 Forward<kBf16Pack>{args}, Forward<1>{args}, stream);
}

cudaError_t GluBackward(const GluBackwardArgs<Bf16>& args, cudaStream_t stream) {
  return MapRows(args.rows, args.width,
                 Aligned16(args.a, args.a_stride) && Aligned16(args.b, args.b_stride) &&
                     Aligned16(args.output_gradient, args.width) &&
                     Aligned16(args.a_gradient, args.a_gradient_stride) &&
                     Aligned16(args.b_gradient, args.b_gradient_stride) &&
                     Aligned16(args.product, args.width),
                 Backward<kBf16Pack>{args}, Backward<1>{args}, stream);
}

}  // namespace lasp::kernels::cuda
