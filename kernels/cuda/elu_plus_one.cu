#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/elu_plus_one.h"
#include "kernels/cuda/map_rows.cuh"
#include "kernels/cuda/pack.cuh"

namespace lasp::kernels::cuda {
namespace {

template <int N>
struct Forward {
  using In = Bf16Pack<N>;
  EluPlusOneForwardArgs<Bf16> args;

  __device__ In Load(int64_t row, int column) const {
    return In::Load(args.input + row * args.input_stride + column);
  }

  __device__ void Store(int64_t row, int column, const In& z) const {
    float y[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      y[i] = z[i] > 0.0F ? z[i] + 1.0F : __expf(z[i]);
    }
    Bf16Pack<N>::Rounded(y).Store(args.output + row * args.output_stride + column);
  }
};

template <int N>
struct Backward {
  struct In {
    Bf16Pack<N> z;
    Bf16Pack<N> d_y;
  };

  EluPlusOneBackwardArgs<Bf16> args;

  __device__ In Load(int64_t row, int column) const {
    return {Bf16Pack<N>::Load(args.input + row * args.input_stride + column),
            Bf16Pack<N>::Load(args.output_gradient + row * args.output_gradient_stride + column)};
  }

  __device__ void Store(int64_t row, int column, const In& in) const {
    float d_z[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      d_z[i] = in.d_y[i] * __expf(fminf(in.z[i], 0.0F));
    }
    Bf16Pack<N>::Rounded(d_z).Store(args.input_gradient + row * args.input_gradient_stride +
                                    column);
  }
};

}  // namespace

cudaError_t EluPlusOneForward(const EluPlusOneForwardArgs<Bf16>& args, cudaStream_t stream) {
  return MapRows(
      args.rows, args.width,
      Aligned16(args.input, args.input_stride) && Aligned16(args.output, args.output_stride),
      Forward<kBf16Pack>{args}, Forward<1>{args}, stream);
}

cudaError_t EluPlusOneBackward(const EluPlusOneBackwardArgs<Bf16>& args, cudaStream_t stream) {
  return MapRows(args.rows, args.width,
                 Aligned16(args.input, args.input_stride) &&
                     Aligned16(args.output_gradient, args.output_gradient_stride) &&
                     Aligned16(args.input_gradient, args.input_gradient_stride),
                 Backward<kBf16Pack>{args}, Backward<1>{args}, stream);
}

}  // namespace lasp::kernels::cuda
