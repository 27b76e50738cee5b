// Normalisation by rows, plain or gated: a warp or a block holds a row in registers, so that each
// value is read once. Rows too wide for that, or badly aligned, take a slow kernel that reads them
// twice.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/reduce.cuh"

namespace lasp::kernels::cuda {

inline constexpr int kNormThreads = 128;

// What is null is left out. All rows but the gate's are contiguous.
struct NormForward {
  int64_t rows;
  int width;
  float epsilon;
  const Bf16* input;
  const Bf16* addend;
  const Bf16* gate;
  int64_t gate_stride;
  Bf16* sum;
  Bf16* output;
  float* inverse_rms;
};

struct NormBackward {
  int64_t rows;
  int width;
  const Bf16* input;
  const float* inverse_rms;
  const Bf16* output_gradient;
  const Bf16* addend;
  const Bf16* gate;
  int64_t gate_stride;
  Bf16* gate_gradient;
  int64_t gate_gradient_stride;
  Bf16* input_gradient;
};

// How a row is shared among threads (32, or all of a block): each holds kPacks packs, kThreads
// apart.
template <int kPackCount, int kThreadCount>
struct RowShare {
  static constexpr int kPacks = kPackCount;
  static constexpr int kThreads = kThreadCount;
  static constexpr int kRowsABlock = kNormThreads / kThreads;
  static constexpr int kWidth = kPacks * kThreads * kBf16Pack;

  __device__ __forceinline__ static int Thread() {
    return static_cast<int>(threadIdx.x) % kThreads;
  }

  __device__ __forceinline__ static int64_t Row() {
    return static_cast<int64_t>(blockIdx.x) * kRowsABlock + threadIdx.x / kThreads;
  }

  __device__ __forceinline__ static float Sum(float value) {
    if constexpr (kThreads == 32) {
      return WarpSum(value);
    } else {
      return BlockSum<kNormThreads>(value);
    }
  }
};

template <int kPacks>
__device__ __forceinline__ void Hold(Bf16Pack<kBf16Pack> (&packs)[kPacks]) {
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    packs[i].Hold();
  }
}

template <typename Share>
__device__ __forceinline__ void LoadRow(const Bf16* row, int packs,
                                        Bf16Pack<kBf16Pack> (&to)[Share::kPacks]) {
#pragma unroll
  for (int i = 0; i < Share::kPacks; ++i) {
    const int pack = Share::Thread() + Share::kThreads * i;
    to[i] = pack < packs ? Bf16Pack<kBf16Pack>::Load(row + pack * kBf16Pack)
                         : Bf16Pack<kBf16Pack>::Of(0);
  }
}

template <typename Share, typename ValueAt>
__device__ __forceinline__ void StoreRow(Bf16* row, int packs, const ValueAt& value_at) {
#pragma unroll
  for (int i = 0; i < Share::kPacks; ++i) {
    const int pack = Share::Thread() + Share::kThreads * i;
    if (pack < packs) {
      float values[kBf16Pack];
#pragma unroll
      for (int e = 0; e < kBf16Pack; ++e) {
        values[e] = value_at(i, e);
      }
      Bf16Pack<kBf16Pack>::Rounded(values).Store(row + pack * kBf16Pack);
    }
  }
}

template <typename Share, bool kGated>
__global__ void __launch_bounds__(kNormThreads) norm_forward_kernel(const NormForward args) {
  constexpr int kPacks = Share::kPacks;
  const int64_t row = Share::Row();
  if (row >= args.rows) {
    return;
  }
  const int packs = args.width / kBf16Pack;
  const int64_t start = row * args.width;
  Bf16Pack<kBf16Pack> s[kPacks];
  Bf16Pack<kBf16Pack> other[kPacks];  // the addend, or the gate
  LoadRow<Share>(args.input + start, packs, s);
  if constexpr (kGated) {
    LoadRow<Share>(args.gate + row * args.gate_stride, packs, other);
  } else if (args.addend != nullptr) {
    LoadRow<Share>(args.addend + start, packs, other);
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      float values[kBf16Pack];
#pragma unroll
      for (int e = 0; e < kBf16Pack; ++e) {
        values[e] = s[i][e] + other[i][e];
      }
      s[i] = Bf16Pack<kBf16Pack>::Rounded(values);
    }
    StoreRow<Share>(args.sum + start, packs, [&](int i, int e) { return s[i][e]; });
  }
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
#pragma unroll
    for (int e = 0; e < kBf16Pack; ++e) {
      squares += s[i][e] * s[i][e];
    }
  }
  const float r = rsqrtf(Share::Sum(squares) / static_cast<float>(args.width) + args.epsilon);
  Hold(s);
  if (args.inverse_rms != nullptr && Share::Thread() == 0) {
    args.inverse_rms[row] = r;
  }
  if (args.output != nullptr) {
    StoreRow<Share>(args.output + start, packs,
                    [&](int i, int e) { return kGated ? s[i][e] * r * other[i][e] : s[i][e] * r; });
  }
}

template <typename Share, bool kGated>
__global__ void __launch_bounds__(kNormThreads) norm_backward_kernel(const NormBackward args) {
  constexpr int kPacks = Share::kPacks;
  const int64_t row = Share::Row();
  if (row >= args.rows) {
    return;
  }
  const int packs = args.width / kBf16Pack;
  const int64_t start = row * args.width;
  Bf16Pack<kBf16Pack> s[kPacks];
  Bf16Pack<kBf16Pack> d_y[kPacks];
  Bf16Pack<kBf16Pack> other[kPacks];  // the addend, or the gate
  LoadRow<Share>(args.input + start, packs, s);
  LoadRow<Share>(args.output_gradient + start, packs, d_y);
  const bool adds = !kGated && args.addend != nullptr;
  if constexpr (kGated) {
    LoadRow<Share>(args.gate + row * args.gate_stride, packs, other);
  } else if (adds) {
    LoadRow<Share>(args.addend + start, packs, other);
  }
  const float r = args.inverse_rms[row];
  // g is the gradient of the normalised row.
  const auto g = [&](int i, int e) { return kGated ? d_y[i][e] * other[i][e] : d_y[i][e]; };
  float product = 0;
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
#pragma unroll
    for (int e = 0; e < kBf16Pack; ++e) {
      product += s[i][e] * g(i, e);
    }
  }
  const float mean = Share::Sum(product) * r / static_cast<float>(args.width);
  Hold(s);
  Hold(d_y);
  if constexpr (kGated) {
    Hold(other);
  }
  if constexpr (kGated) {
    StoreRow<Share>(args.gate_gradient + row * args.gate_gradient_stride, packs,
                    [&](int i, int e) { return d_y[i][e] * s[i][e] * r; });
  }
  StoreRow<Share>(args.input_gradient + start, packs, [&](int i, int e) {
    const float d_s = r * (g(i, e) - s[i][e] * r * mean);
    return adds ? d_s + other[i][e] : d_s;
  });
}

template <bool kGated>
__global__ void __launch_bounds__(kNormThreads) norm_forward_slow_kernel(const NormForward args) {
  const int64_t row = blockIdx.x;
  const int64_t start = row * args.width;
  const bool adds = args.addend != nullptr;
  const Bf16* const s = adds ? args.sum : args.input;
  float squares = 0;
  for (int c = static_cast<int>(threadIdx.x); c < args.width; c += kNormThreads) {
    if (adds) {
      args.sum[start + c] = __float2bfloat16_rn(__bfloat162float(args.input[start + c]) +
                                                __bfloat162float(args.addend[start + c]));
    }
    const float value = __bfloat162float(s[start + c]);
    squares += value * value;
  }
  const float r =
      rsqrtf(BlockSum<kNormThreads>(squares) / static_cast<float>(args.width) + args.epsilon);
  if (args.inverse_rms != nullptr && threadIdx.x == 0) {
    args.inverse_rms[row] = r;
  }
  if (args.output == nullptr) {
    return;
  }
  for (int c = static_cast<int>(threadIdx.x); c < args.width; c += kNormThreads) {
    float value = __bfloat162float(s[start + c]) * r;
    if constexpr (kGated) {
      value *= __bfloat162float(args.gate[row * args.gate_stride + c]);
    }
    args.output[start + c] = __float2bfloat16_rn(value);
  }
}

template <bool kGated>
__global__ void __launch_bounds__(kNormThreads) norm_backward_slow_kernel(const NormBackward args) {
  const int64_t row = blockIdx.x;
  const int64_t start = row * args.width;
  const Bf16* const gate = kGated ? args.gate + row * args.gate_stride : nullptr;
  const float r = args.inverse_rms[row];
  const auto g = [&](int c) {
    const float d_y = __bfloat162float(args.output_gradient[start + c]);
    return kGated ? d_y * __bfloat162float(gate[c]) : d_y;
  };
  float product = 0;
  for (int c = static_cast<int>(threadIdx.x); c < args.width; c += kNormThreads) {
    product += __bfloat162float(args.input[start + c]) * g(c);
  }
  const float mean = BlockSum<kNormThreads>(product) * r / static_cast<float>(args.width);
  for (int c = static_cast<int>(threadIdx.x); c < args.width; c += kNormThreads) {
    const float s_hat = __bfloat162float(args.input[start + c]) * r;
    const float d_y = __bfloat162float(args.output_gradient[start + c]);
    float d_s = r * (g(c) - s_hat * mean);
    if (args.addend != nullptr) {
      d_s += __bfloat162float(args.addend[start + c]);
    }
    if constexpr (kGated) {
      args.gate_gradient[row * args.gate_gradient_stride + c] = __float2bfloat16_rn(d_y * s_hat);
    }
    args.input_gradient[start + c] = __float2bfloat16_rn(d_s);
  }
}

// Calls launch.Rows<Share>() with the least share that holds a row of `width`, or launch.Slow().
template <typename Launch>
cudaError_t LaunchNorm(int64_t rows, int width, bool aligned, const Launch& launch) {
  if (rows == 0 || width == 0) {
    return cudaSuccess;
  }
  using Narrow = RowShare<2, 32>;
  using Middle = RowShare<8, 32>;
  using Wide = RowShare<4, kNormThreads>;
  using Widest = RowShare<8, kNormThreads>;
  if (!aligned || width % kBf16Pack != 0 || width > Widest::kWidth) {
    launch.Slow(static_cast<unsigned>(rows));
  } else if (width <= Narrow::kWidth) {
    launch.template Rows<Narrow>(rows);
  } else if (width <= Middle::kWidth) {
    launch.template Rows<Middle>(rows);
  } else if (width <= Wide::kWidth) {
    launch.template Rows<Wide>(rows);
  } else {
    launch.template Rows<Widest>(rows);
  }
  return cudaGetLastError();
}

template <bool kGated>
struct LaunchNormForward {
  const NormForward& args;
  cudaStream_t stream;

  template <typename Share>
  void Rows(int64_t rows) const {
    const auto blocks = static_cast<unsigned>((rows + Share::kRowsABlock - 1) / Share::kRowsABlock);
    norm_forward_kernel<Share, kGated><<<blocks, kNormThreads, 0, stream>>>(args);
  }

  void Slow(unsigned rows) const {
    norm_forward_slow_kernel<kGated><<<rows, kNormThreads, 0, stream>>>(args);
  }
};

template <bool kGated>
struct LaunchNormBackward {
  const NormBackward& args;
  cudaStream_t stream;

  template <typename Share>
  void Rows(int64_t rows) const {
    const auto blocks = static_cast<unsigned>((rows + Share::kRowsABlock - 1) / Share::kRowsABlock);
    norm_backward_kernel<Share, kGated><<<blocks, kNormThreads, 0, stream>>>(args);
  }

  void Slow(unsigned rows) const {
    norm_backward_slow_kernel<kGated><<<rows, kNormThreads, 0, stream>>>(args);
  }
};

}  // namespace lasp::kernels::cuda
