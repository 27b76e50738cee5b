// A warp a row: the parts of a row are narrow, and all of it is limited by memory.
#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/split_gated_rms_norm.h"

namespace lasp::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kRowsABlock = kThreads / 32;

__device__ __forceinline__ int64_t Row() {
  return static_cast<int64_t>(blockIdx.x) * kRowsABlock + threadIdx.x / 32;
}

// Calls body(column) for this lane's packs of N columns.
template <int N, typename Body>
__device__ __forceinline__ void ForColumns(int64_t width, const Body& body) {
  for (int64_t c = static_cast<int64_t>(threadIdx.x % 32) * N; c < width; c += 32 * N) {
    body(c);
  }
}

template <int N>
__global__ void __launch_bounds__(kThreads)
    split_norm_sums_kernel(const SplitNormSumsArgs<Bf16, float> args) {
  const int64_t row = Row();
  if (row >= args.rows) {
    return;
  }
  const int64_t start = row * args.width;
  float sum = 0;
  ForColumns<N>(args.width, [&](int64_t c) {
    const auto x = Bf16Pack<N>::Load(args.input + start + c);
    if (args.output_gradient == nullptr) {
#pragma unroll
      for (int e = 0; e < N; ++e) {
        sum += x[e] * x[e];
      }
      return;
    }
    const auto d_y = Bf16Pack<N>::Load(args.output_gradient + start + c);
    const auto gate = Bf16Pack<N>::Load(args.gate + row * args.gate_stride + c);
#pragma unroll
    for (int e = 0; e < N; ++e) {
      sum += x[e] * (d_y[e] * gate[e]);
    }
  });
  sum = WarpSum(sum);
  if (threadIdx.x % 32 == 0) {
    args.sums[row] = sum;
  }
}

template <int N>
__global__ void __launch_bounds__(kThreads)
    split_norm_forward_kernel(const SplitGatedRmsNormForwardArgs<Bf16, float> args) {
  const int64_t row = Row();
  if (row >= args.rows) {
    return;
  }
  const int64_t start = row * args.width;
  const float r = rsqrtf(args.inverse_rms[row] / static_cast<float>(args.whole_width) +
                         static_cast<float>(args.epsilon));
  // All lanes have read the sum.
  __syncwarp();
  if (threadIdx.x % 32 == 0) {
    args.inverse_rms[row] = r;
  }
  ForColumns<N>(args.width, [&](int64_t c) {
    const auto x = Bf16Pack<N>::Load(args.input + start + c);
    const auto gate = Bf16Pack<N>::Load(args.gate + row * args.gate_stride + c);
    float values[N];
#pragma unroll
    for (int e = 0; e < N; ++e) {
      values[e] = x[e] * r * gate[e];
    }
    Bf16Pack<N>::Rounded(values).Store(args.output + start + c);
  });
}

template <int N>
__global__ void __launch_bounds__(kThreads)
    split_norm_backward_kernel(const SplitGatedRmsNormBackwardArgs<Bf16, float> args) {
  const int64_t row = Row();
  if (row >= args.rows) {
    return;
  }
  const int64_t start = row * args.width;
  const float r = args.inverse_rms[row];
  const float mean = args.sums[row] * r / static_cast<float>(args.whole_width);
  ForColumns<N>(args.width, [&](int64_t c) {
    const auto x = Bf16Pack<N>::Load(args.input + start + c);
    const auto d_y = Bf16Pack<N>::Load(args.output_gradient + start + c);
    const auto gate = Bf16Pack<N>::Load(args.gate + row * args.gate_stride + c);
    float d_x[N];
    float d_gate[N];
#pragma unroll
    for (int e = 0; e < N; ++e) {
      d_gate[e] = d_y[e] * x[e] * r;
      d_x[e] = r * (d_y[e] * gate[e] - x[e] * r * mean);
    }
    Bf16Pack<N>::Rounded(d_gate).Store(args.gate_gradient + row * args.gate_gradient_stride + c);
    Bf16Pack<N>::Rounded(d_x).Store(args.input_gradient + start + c);
  });
}

// Runs `wide` with packs of 8 where `aligned` and the width allow it, else `narrow`.
template <typename Args>
cudaError_t Launch(void (*wide)(Args), void (*narrow)(Args), const Args& args, bool aligned,
                   cudaStream_t stream) {
  if (args.rows == 0 || args.width == 0) {
    return cudaSuccess;
  }
  const auto blocks = static_cast<unsigned>((args.rows + kRowsABlock - 1) / kRowsABlock);
  if (aligned && args.width % kBf16Pack == 0) {
    wide<<<blocks, kThreads, 0, stream>>>(args);
  } else {
    narrow<<<blocks, kThreads, 0, stream>>>(args);
  }
  return cudaGetLastError();
}

}  // namespace

cudaError_t SplitNormSums(const SplitNormSumsArgs<Bf16, float>& args, cudaStream_t stream) {
  const bool aligned = Aligned16(args.input, args.width) &&
                       Aligned16(args.output_gradient, args.width) &&
                       Aligned16(args.gate, args.gate_stride);
  return Launch(&split_norm_sums_kernel<kBf16Pack>, &split_norm_sums_kernel<1>, args, aligned,
                stream);
}

cudaError_t SplitGatedRmsNormForward(const SplitGatedRmsNormForwardArgs<Bf16, float>& args,
                                     cudaStream_t stream) {
  const bool aligned = Aligned16(args.input, args.width) &&
                       Aligned16(args.gate, args.gate_stride) && Aligned16(args.output, args.width);
  return Launch(&split_norm_forward_kernel<kBf16Pack>, &split_norm_forward_kernel<1>, args, aligned,
                stream);
}

cudaError_t SplitGatedRmsNormBackward(const SplitGatedRmsNormBackwardArgs<Bf16, float>& args,
                                      cudaStream_t stream) {
  const bool aligned = Aligned16(args.input, args.width) &&
                       Aligned16(args.output_gradient, args.width) &&
                       Aligned16(args.gate, args.gate_stride) &&
                       Aligned16(args.gate_gradient, args.gate_gradient_stride) &&
                       Aligned16(args.input_gradient, args.width);
  return Launch(&split_norm_backward_kernel<kBf16Pack>, &split_norm_backward_kernel<1>, args,
                aligned, stream);
}

}  // namespace lasp::kernels::cuda
