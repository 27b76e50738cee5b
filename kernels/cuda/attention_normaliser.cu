#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "kernels/cuda/attention_normaliser.h"
#include "kernels/cuda/document_sums.cuh"
#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/reduce.cuh"

namespace lasp::kernels::cuda {
namespace {

using namespace document_sums;  // NOLINT(google-build-using-namespace)

struct Normaliser {
  HeadsView<const Bf16> q;
  HeadsView<Bf16> output;
  float* denominators;

  __device__ void operator()(const LinearAttentionShape& shape, const Place& place, int64_t token,
                             int channel, const LaneValues& sum) const {
    float dot = 0;
    if (channel < shape.key_size) {
      const LaneValues row = LaneValues::Load(RowOf(q, place, token) + channel);
#pragma unroll
      for (int i = 0; i < kLaneChannels; ++i) {
        dot = fmaf(row.values[i], sum.values[i], dot);
      }
    }
    const float denominator = WarpSum(dot) + static_cast<float>(kDenominatorEpsilon);
    if (channel == 0) {
      denominators[NumberOf(shape, place, token)] = denominator;
    }
    if (channel < shape.value_size) {
      Bf16* const at = RowOf(output, place, token) + channel;
      LaneValues row = LaneValues::Load(at);
#pragma unroll
      for (int i = 0; i < kLaneChannels; ++i) {
        row.values[i] = __fdividef(row.values[i], denominator);
      }
      row.Store(at);
    }
  }
};

// gradient += factor * sum
struct GradientAdder {
  HeadsView<Bf16> gradient;
  const float* factors;  // null: ones

  __device__ void operator()(const LinearAttentionShape& shape, const Place& place, int64_t token,
                             int channel, const LaneValues& sum) const {
    if (channel >= shape.key_size) {
      return;
    }
    const float factor = factors == nullptr ? 1.0F : factors[NumberOf(shape, place, token)];
    Bf16* const at = RowOf(gradient, place, token) + channel;
    LaneValues row = LaneValues::Load(at);
#pragma unroll
    for (int i = 0; i < kLaneChannels; ++i) {
      row.values[i] = fmaf(factor, sum.values[i], row.values[i]);
    }
    row.Store(at);
  }
};

// A warp a row of a head.
__global__ void __launch_bounds__(kThreads) SplitGradientKernel(SplitGradientArgs args) {
  const LinearAttentionShape& shape = args.shape;
  const Place place = PlaceOf(shape);
  const int64_t token =
      static_cast<int64_t>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32;
  if (token >= shape.tokens) {
    return;
  }
  const int channel = static_cast<int>(threadIdx.x) % 32 * kLaneChannels;
  const bool has = channel < shape.value_size;
  float* const number = args.denominators + NumberOf(shape, place, token);
  const float inverse = __frcp_rn(*number);
  Bf16* const at = RowOf(args.gradient, place, token) + channel;
  LaneValues gradient = {};
  float dot = 0;
  if (has) {
    gradient = LaneValues::Load(at);
    const LaneValues output = LaneValues::Load(RowOf(args.output, place, token) + channel);
#pragma unroll
    for (int i = 0; i < kLaneChannels; ++i) {
      dot = fmaf(gradient.values[i], output.values[i], dot);
      gradient.values[i] *= inverse;
    }
    gradient.Store(at);
  }
  dot = WarpSum(dot);
  if (channel == 0) {
    *number = -dot * inverse;
  }
}

// An element of a layer's states [batch, heads, key_size, value_size], behind which lie the sums of
// keys [batch, heads, key_size], a thread.
__global__ void __launch_bounds__(kThreads)
    AddStatesKernel(LinearAttentionShape shape, int64_t count, const float* state_in,
                    const float* local, float* state_out) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) {
    return;
  }
  float sum = local[i];
  if (state_in != nullptr) {
    bool starts = false;
    if (shape.document_marks != nullptr) {
      const int64_t sums = shape.heads * shape.key_size;
      const int64_t products = shape.batch * sums * shape.value_size;
      const int64_t batch = i < products ? i / (sums * shape.value_size) : (i - products) / sums;
      const int64_t words = (shape.tokens + kLinearAttentionBlock - 1) / kLinearAttentionBlock;
      for (int64_t word = 0; word < words && !starts; ++word) {
        starts = __ldg(shape.document_marks + batch * words + word) != 0;
      }
    }
    sum += starts ? 0.0F : state_in[i];
  }
  state_out[i] = sum;
}

}  // namespace

cudaError_t AddNormalisedStates(const NormalisedHopArgs& args, cudaStream_t stream) {
  if (args.count == 0) {
    return cudaSuccess;
  }
  AddStatesKernel<<<static_cast<unsigned>((args.count + kThreads - 1) / kThreads), kThreads, 0,
                    stream>>>(args.shape, args.count, args.state_in, args.local, args.state_out);
  return cudaGetLastError();
}

int64_t NormaliserWorkspaceElements(const LinearAttentionShape& shape) {
  return shape.batch * shape.heads * SegmentsOf(shape) * shape.key_size;
}

cudaError_t KeySum(const KeySumArgs& args, cudaStream_t stream) {
  return Total<false>(args.shape, {.rows = args.k}, args.workspace, args.sum, stream);
}

cudaError_t QuerySum(const QuerySumArgs& args, cudaStream_t stream) {
  return Total<true>(args.shape, {.rows = args.q, .factors = args.denominator_gradient},
                     args.workspace, args.sum, stream);
}

cudaError_t Normalise(const NormaliseArgs& args, cudaStream_t stream) {
  if (!Taken(args.q) || !Taken(args.output)) {
    return cudaErrorInvalidValue;
  }
  return RunningSum<false>(
      args.shape, {.rows = args.k}, args.sum_in, args.workspace,
      Normaliser{.q = args.q, .output = args.output, .denominators = args.denominators}, stream);
}

cudaError_t SplitGradient(const SplitGradientArgs& args, cudaStream_t stream) {
  if (!Taken(args.shape) || !Taken(args.output) || !Taken(args.gradient)) {
    return cudaErrorInvalidValue;
  }
  if (Empty(args.shape)) {
    return cudaSuccess;
  }
  const dim3 grid(static_cast<unsigned>((args.shape.tokens + kWarps - 1) / kWarps),
                  static_cast<unsigned>(args.shape.batch * args.shape.heads));
  SplitGradientKernel<<<grid, kThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

cudaError_t AddQueryGradients(const NormaliserQueryGradientArgs& args, cudaStream_t stream) {
  if (!Taken(args.q_gradient)) {
    return cudaErrorInvalidValue;
  }
  return RunningSum<false>(
      args.shape, {.rows = args.k}, args.sum_in, args.workspace,
      GradientAdder{.gradient = args.q_gradient, .factors = args.denominator_gradient}, stream);
}

cudaError_t AddKeyGradients(const NormaliserKeyGradientArgs& args, cudaStream_t stream) {
  if (!Taken(args.k_gradient)) {
    return cudaErrorInvalidValue;
  }
  return RunningSum<true>(args.shape, {.rows = args.q, .factors = args.denominator_gradient},
                          args.sum_gradient_in, args.workspace,
                          GradientAdder{.gradient = args.k_gradient, .factors = nullptr}, stream);
}

}  // namespace lasp::kernels::cuda
