#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/bf16_rounding.h"
#include "kernels/cuda/adamw.h"
#include "kernels/cuda/pack.cuh"

namespace lasp::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kUnroll = 2;
constexpr int64_t kBlockValues = kThreads * kUnroll * 4;
constexpr int kMostTensors = 48;  // what a launch's parameters hold

template <typename Moment>
struct Batch {
  AdamWTensor<Moment> tensors[kMostTensors];
  int64_t block_ends[kMostTensors];  // blocks up to and with each tensor's
  int count;
  float beta1;
  float beta2;
  float epsilon;
  const UpdateControl* control;
};

struct Step {
  float beta1;
  float beta2;
  float epsilon;
  float learning_rate;
  float weight_decay;
  float inverse_correction1;
  float inverse_correction2;
  float gradient_scale;
  uint32_t update;
};

// Four moments of one kind on their way between memory and registers. A Moment of bf16 takes the
// 16 random bits of its element that are `kShift` up.
template <typename Moment>
struct Moments;

template <>
struct Moments<float> {
  __device__ __forceinline__ static float4 Load(const float* from) {
    return *reinterpret_cast<const float4*>(from);
  }

  template <int kShift>
  __device__ __forceinline__ static void Store(const float4& x, const Step& /*step*/,
                                               int64_t /*element*/, float* to) {
    *reinterpret_cast<float4*>(to) = x;
  }

  __device__ __forceinline__ static float LoadOne(const float* from) { return *from; }

  template <int kShift>
  __device__ __forceinline__ static void StoreOne(float x, const Step& /*step*/,
                                                  int64_t /*element*/, float* to) {
    *to = x;
  }
};

template <>
struct Moments<Bf16> {
  __device__ __forceinline__ static float4 Load(const Bf16* from) {
    const uint2 words = *reinterpret_cast<const uint2*>(from);
    return {__uint_as_float(words.x << 16), __uint_as_float(words.x & 0xffff0000U),
            __uint_as_float(words.y << 16), __uint_as_float(words.y & 0xffff0000U)};
  }

  template <int kShift>
  __device__ __forceinline__ static uint32_t Rounded(float x, const Step& step, int64_t element) {
    return RoundedAtRandom(x, RoundingBits(step.update, element) >> kShift);
  }

  template <int kShift>
  __device__ __forceinline__ static void Store(const float4& x, const Step& step, int64_t element,
                                               Bf16* to) {
    *reinterpret_cast<uint2*>(to) = {
        Rounded<kShift>(x.x, step, element) | Rounded<kShift>(x.y, step, element + 1) << 16,
        Rounded<kShift>(x.z, step, element + 2) | Rounded<kShift>(x.w, step, element + 3) << 16};
  }

  __device__ __forceinline__ static float LoadOne(const Bf16* from) {
    return __bfloat162float(*from);
  }

  template <int kShift>
  __device__ __forceinline__ static void StoreOne(float x, const Step& step, int64_t element,
                                                  Bf16* to) {
    *reinterpret_cast<uint16_t*>(to) = static_cast<uint16_t>(Rounded<kShift>(x, step, element));
  }
};

__device__ __forceinline__ void Update(const Step& step, float gradient, float& p, float& m,
                                       float& v) {
  const float g = step.gradient_scale * gradient;
  m = step.beta1 * m + (1.0F - step.beta1) * g;
  v = step.beta2 * v + (1.0F - step.beta2) * g * g;
  const float direction =
      m * step.inverse_correction1 / (sqrtf(v * step.inverse_correction2) + step.epsilon);
  p -= step.learning_rate * (step.weight_decay * p + direction);
}

__device__ __forceinline__ void UpdateQuad(const Step& step, const float4& g, float4& p, float4& m,
                                           float4& v) {
  Update(step, g.x, p.x, m.x, v.x);
  Update(step, g.y, p.y, m.y, v.y);
  Update(step, g.z, p.z, m.z, v.z);
  Update(step, g.w, p.w, m.w, v.w);
}

__device__ __forceinline__ void StoreCopy(const float4& p, Bf16* to) {
  const __nv_bfloat162 pairs[2] = {__floats2bfloat162_rn(p.x, p.y),
                                   __floats2bfloat162_rn(p.z, p.w)};
  *reinterpret_cast<uint2*>(to) = *reinterpret_cast<const uint2*>(pairs);
}

template <typename Moment>
__device__ __forceinline__ bool QuadsFit(const AdamWTensor<Moment>& tensor) {
  constexpr int kMomentsAWord = 4 / sizeof(Moment);
  const auto addresses = reinterpret_cast<uintptr_t>(tensor.parameter) |
                         reinterpret_cast<uintptr_t>(tensor.gradient) |
                         reinterpret_cast<uintptr_t>(tensor.first_moment) * kMomentsAWord |
                         reinterpret_cast<uintptr_t>(tensor.second_moment) * kMomentsAWord |
                         reinterpret_cast<uintptr_t>(tensor.copy) * 2;
  return addresses % 16 == 0;
}

template <typename Moment>
__global__ void __launch_bounds__(kThreads)
    adamw_kernel(const __grid_constant__ Batch<Moment> batch) {
  const UpdateControl& control = *batch.control;
  if (control.apply == 0) {
    return;
  }
  int index = 0;
  while (static_cast<int64_t>(blockIdx.x) >= batch.block_ends[index]) {
    ++index;
  }
  const AdamWTensor<Moment>& tensor = batch.tensors[index];
  const int64_t first_block = index == 0 ? 0 : batch.block_ends[index - 1];
  const int64_t begin = (static_cast<int64_t>(blockIdx.x) - first_block) * kBlockValues;
  const int64_t end = min(begin + kBlockValues, tensor.count);
  const Step step = {.beta1 = batch.beta1,
                     .beta2 = batch.beta2,
                     .epsilon = batch.epsilon,
                     .learning_rate = static_cast<float>(control.learning_rate),
                     .weight_decay = tensor.weight_decay,
                     .inverse_correction1 = static_cast<float>(1.0 / control.correction1),
                     .inverse_correction2 = static_cast<float>(1.0 / control.correction2),
                     .gradient_scale = static_cast<float>(control.gradient_scale),
                     .update = static_cast<uint32_t>(control.updates)};
  int64_t rest = begin;
  if (end - begin == kBlockValues && QuadsFit(tensor)) {
    float4 p[kUnroll];
    float4 g[kUnroll];
    float4 m[kUnroll];
    float4 v[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int64_t at = begin + (static_cast<int>(threadIdx.x) + u * kThreads) * 4;
      g[u] = __ldcs(reinterpret_cast<const float4*>(tensor.gradient + at));
      p[u] = *reinterpret_cast<const float4*>(tensor.parameter + at);
      m[u] = Moments<Moment>::Load(tensor.first_moment + at);
      v[u] = Moments<Moment>::Load(tensor.second_moment + at);
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int64_t at = begin + (static_cast<int>(threadIdx.x) + u * kThreads) * 4;
      UpdateQuad(step, g[u], p[u], m[u], v[u]);
      *reinterpret_cast<float4*>(tensor.parameter + at) = p[u];
      const int64_t element = tensor.first_element + at;
      Moments<Moment>::template Store<0>(m[u], step, element, tensor.first_moment + at);
      Moments<Moment>::template Store<16>(v[u], step, element, tensor.second_moment + at);
      if (tensor.copy != nullptr) {
        StoreCopy(p[u], tensor.copy + at);
      }
    }
    rest = end;
  }
  for (int64_t i = rest + threadIdx.x; i < end; i += kThreads) {
    float m = Moments<Moment>::LoadOne(tensor.first_moment + i);
    float v = Moments<Moment>::LoadOne(tensor.second_moment + i);
    Update(step, tensor.gradient[i], tensor.parameter[i], m, v);
    const int64_t element = tensor.first_element + i;
    Moments<Moment>::template StoreOne<0>(m, step, element, tensor.first_moment + i);
    Moments<Moment>::template StoreOne<16>(v, step, element, tensor.second_moment + i);
    if (tensor.copy != nullptr) {
      tensor.copy[i] = __float2bfloat16_rn(tensor.parameter[i]);
    }
  }
}

__global__ void judge_update_kernel(const JudgeUpdateArgs args) {
  UpdateControl control = *args.control;
  // The host writes the word while kernels run.
  const bool broken_off =
      args.broken_off != nullptr && *static_cast<const volatile uint32_t*>(args.broken_off) != 0;
  if (broken_off || control.witness != control.witness_wanted) {
    args.control->apply = 0;
    args.control->gradient_scale = 0;
    return;
  }
  control.gradient_norm = sqrt(*args.sum_of_squares);
  if (!isfinite(*args.loss) || !isfinite(control.gradient_norm) ||
      *args.loss > control.loss_limit) {
    control.apply = 0;
    control.gradient_scale = 0;
    control.skipped += 1;
    control.skipped_in_a_row += 1;
  } else {
    const bool clip = args.max_gradient_norm > 0 && control.gradient_norm > args.max_gradient_norm;
    control.apply = 1;
    control.gradient_scale = clip ? args.max_gradient_norm / control.gradient_norm : 1.0;
    control.updates += 1;
    control.skipped_in_a_row = 0;
    control.correction1 = 1.0 - pow(args.beta1, control.updates);
    control.correction2 = 1.0 - pow(args.beta2, control.updates);
  }
  *args.control = control;
}

}  // namespace

cudaError_t JudgeUpdate(const JudgeUpdateArgs& args, cudaStream_t stream) {
  judge_update_kernel<<<1, 1, 0, stream>>>(args);
  return cudaGetLastError();
}

template <typename Moment>
cudaError_t AdamW(const AdamWArgs<Moment>& args, cudaStream_t stream) {
  for (int first = 0; first < args.tensor_count; first += kMostTensors) {
    Batch<Moment> batch = {.tensors = {},
                           .block_ends = {},
                           .count = std::min(args.tensor_count - first, kMostTensors),
                           .beta1 = args.beta1,
                           .beta2 = args.beta2,
                           .epsilon = args.epsilon,
                           .control = args.control};
    int64_t blocks = 0;
    for (int i = 0; i < batch.count; ++i) {
      batch.tensors[i] = args.tensors[first + i];
      blocks += (batch.tensors[i].count + kBlockValues - 1) / kBlockValues;
      batch.block_ends[i] = blocks;
    }
    if (blocks > 0) {
      adamw_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(batch);
    }
  }
  return cudaGetLastError();
}

template cudaError_t AdamW<float>(const AdamWArgs<float>&, cudaStream_t);
template cudaError_t AdamW<Bf16>(const AdamWArgs<Bf16>&, cudaStream_t);

}  // namespace lasp::kernels::cuda
