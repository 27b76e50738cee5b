#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "kernels/cuda/left_product_attention.h"
#include "kernels/cuda/left_product_sweep.h"

namespace lasp::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// With LRPE (kernels/lrpe.h) doubled rows are [x cos(theta p), x sin(theta p)] of a head,
// contiguous: [batch, tokens, heads, 2 * key_size]. Angles are fp64 and taken within a turn.
struct Doubling {
  LinearAttentionShape shape;
  int64_t first_position = 0;

  // Of element i of [batch, tokens, heads, key_size].
  struct Element {
    int64_t batch;
    int64_t token;
    int64_t head;
    int64_t column;
    int64_t doubled;  // where its cosine's lies; its sine's is key_size on
    float sine;
    float cosine;
  };

  __device__ Element At(int64_t i) const {
    Element element{};
    element.column = i % shape.key_size;
    const int64_t row = i / shape.key_size;
    element.head = row % shape.heads;
    element.token = row / shape.heads % shape.tokens;
    element.batch = row / shape.heads / shape.tokens;
    element.doubled = 2 * row * shape.key_size + element.column;
    constexpr double kInverseTwoPi = 0.15915494309189533577;
    const double turns = shape.theta[element.head * shape.key_size + element.column] *
                         kInverseTwoPi * static_cast<double>(first_position + element.token);
    double sine = 0;
    double cosine = 0;
    sincospi(2.0 * (turns - rint(turns)), &sine, &cosine);
    element.sine = static_cast<float>(sine);
    element.cosine = static_cast<float>(cosine);
    return element;
  }
};

template <typename T>
__device__ T* PlaceOf(const HeadsView<T>& view, const Doubling::Element& element) {
  return view.data + element.batch * view.batch_stride + element.token * view.token_stride +
         element.head * view.head_stride + element.column;
}

__global__ void __launch_bounds__(kThreads)
    DoubleKernel(Doubling doubling, int64_t count, HeadsView<const Bf16> x, Bf16* doubled) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) {
    return;
  }
  const Doubling::Element element = doubling.At(i);
  const float value = __bfloat162float(*PlaceOf(x, element));
  doubled[element.doubled] = __float2bfloat16_rn(value * element.cosine);
  doubled[element.doubled + doubling.shape.key_size] = __float2bfloat16_rn(value * element.sine);
}

// The gradient of x from that of its double.
__global__ void __launch_bounds__(kThreads)
    HalveKernel(Doubling doubling, int64_t count, const Bf16* doubled, bool adds,
                HeadsView<Bf16> x) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) {
    return;
  }
  const Doubling::Element element = doubling.At(i);
  Bf16* const place = PlaceOf(x, element);
  const float value =
      __bfloat162float(doubled[element.doubled]) * element.cosine +
      __bfloat162float(doubled[element.doubled + doubling.shape.key_size]) * element.sine;
  *place = __float2bfloat16_rn(adds ? __bfloat162float(*place) + value : value);
}

int64_t KeyElements(const LinearAttentionShape& shape) {
  return shape.batch * shape.tokens * shape.heads * shape.key_size;
}

unsigned BlocksFor(int64_t count) {
  return static_cast<unsigned>((count + kThreads - 1) / kThreads);
}

// Doubled rows, and their halves as views.
class Doubled {
 public:
  Doubled(const LinearAttentionShape& shape, int64_t first_position, Bf16* data)
      : doubling_{.shape = shape, .first_position = first_position}, data_(data) {}

  cudaError_t From(HeadsView<const Bf16> x, cudaStream_t stream) const {
    const int64_t count = KeyElements(doubling_.shape);
    DoubleKernel<<<BlocksFor(count), kThreads, 0, stream>>>(doubling_, count, x, data_);
    return cudaGetLastError();
  }

  cudaError_t GradientTo(bool adds, HeadsView<Bf16> x, cudaStream_t stream) const {
    const int64_t count = KeyElements(doubling_.shape);
    HalveKernel<<<BlocksFor(count), kThreads, 0, stream>>>(doubling_, count, data_, adds, x);
    return cudaGetLastError();
  }

  HeadsView<Bf16> Half(int half) const {
    const LinearAttentionShape& shape = doubling_.shape;
    const int64_t token_stride = 2 * shape.heads * shape.key_size;
    return {data_ + half * shape.key_size, shape.tokens * token_stride, token_stride,
            2 * shape.key_size};
  }

 private:
  const Doubling doubling_;
  Bf16* const data_;
};

// Both operands of scores of doubled rows.
LeftProductSweep OfDoubled(const LinearAttentionShape& shape, int64_t distance, bool reversed,
                           const Doubled& x, const Doubled& y) {
  return {.shape = shape,
          .distance = distance,
          .reversed = reversed,
          .halves = 2,
          .x = {x.Half(0), x.Half(1)},
          .y = {y.Half(0), y.Half(1)},
          .score_size = shape.key_size};
}

LeftProductSweep Of(const LinearAttentionShape& shape, int64_t distance, bool reversed,
                    HeadsView<const Bf16> x, HeadsView<const Bf16> y, int64_t size) {
  return {.shape = shape,
          .distance = distance,
          .reversed = reversed,
          .halves = 1,
          .x = {x, {}},
          .y = {y, {}},
          .score_size = size};
}

cudaError_t Run(LeftProductSweep sweep, HeadsView<const Bf16> z, int64_t size,
                HeadsView<Bf16> output, bool adds, cudaStream_t stream) {
  sweep.z = z;
  sweep.output = output;
  sweep.output_size = size;
  sweep.adds = adds;
  return RunLeftProductSweep(sweep, stream);
}

cudaError_t RotaryOutput(const LeftProductOutputArgs& args, cudaStream_t stream) {
  const LinearAttentionShape& shape = args.shape;
  const Doubled q(shape, args.distance, args.workspace);
  const Doubled k(shape, 0, args.workspace + 2 * KeyElements(shape));
  cudaError_t error = q.From(args.q, stream);
  if (error == cudaSuccess) {
    error = k.From(args.k, stream);
  }
  return error != cudaSuccess ? error
                              : Run(OfDoubled(shape, args.distance, false, q, k), args.v,
                                    shape.value_size, args.output, args.adds, stream);
}

cudaError_t RotaryGradients(const LeftProductGradientsArgs& args, cudaStream_t stream) {
  const LinearAttentionShape& shape = args.shape;
  const int64_t doubled = 2 * KeyElements(shape);
  const Doubled q(shape, args.distance, args.workspace);
  const Doubled k(shape, 0, args.workspace + doubled);
  // Gradients of one after the other.
  const Doubled q_gradient(shape, args.distance, args.workspace + 2 * doubled);
  const Doubled k_gradient(shape, 0, args.workspace + 2 * doubled);
  cudaError_t error = q.From(args.q, stream);
  if (error == cudaSuccess) {
    error = k.From(args.k, stream);
  }
  if (error == cudaSuccess) {
    error = Run(OfDoubled(shape, args.distance, true, k, q), args.output_gradient, shape.value_size,
                args.v_gradient, false, stream);
  }
  const LeftProductSweep of_queries =
      Of(shape, args.distance, false, args.output_gradient, args.v, shape.value_size);
  const LeftProductSweep of_keys =
      Of(shape, args.distance, true, args.v, args.output_gradient, shape.value_size);
  for (int half = 0; half < 2 && error == cudaSuccess; ++half) {
    error = Run(of_queries, k.Half(half), shape.key_size, q_gradient.Half(half), false, stream);
  }
  if (error == cudaSuccess) {
    error = q_gradient.GradientTo(args.adds, args.q_gradient, stream);
  }
  for (int half = 0; half < 2 && error == cudaSuccess; ++half) {
    error = Run(of_keys, q.Half(half), shape.key_size, k_gradient.Half(half), false, stream);
  }
  return error != cudaSuccess ? error : k_gradient.GradientTo(false, args.k_gradient, stream);
}

}  // namespace

int64_t LeftProductWorkspaceElements(const LinearAttentionShape& shape) {
  return shape.theta == nullptr ? 0 : 3 * 2 * KeyElements(shape);
}

cudaError_t LeftProductOutput(const LeftProductOutputArgs& args, cudaStream_t stream) {
  if (args.shape.theta != nullptr) {
    return RotaryOutput(args, stream);
  }
  return Run(Of(args.shape, args.distance, false, args.q, args.k, args.shape.key_size), args.v,
             args.shape.value_size, args.output, args.adds, stream);
}

cudaError_t LeftProductGradients(const LeftProductGradientsArgs& args, cudaStream_t stream) {
  const LinearAttentionShape& shape = args.shape;
  if (shape.theta != nullptr) {
    return RotaryGradients(args, stream);
  }
  cudaError_t error =
      Run(Of(shape, args.distance, false, args.output_gradient, args.v, shape.value_size), args.k,
          shape.key_size, args.q_gradient, args.adds, stream);
  if (error == cudaSuccess) {
    error = Run(Of(shape, args.distance, true, args.v, args.output_gradient, shape.value_size),
                args.q, shape.key_size, args.k_gradient, false, stream);
  }
  if (error == cudaSuccess) {
    error = Run(Of(shape, args.distance, true, args.k, args.q, shape.key_size),
                args.output_gradient, shape.value_size, args.v_gradient, false, stream);
  }
  return error;
}

}  // namespace lasp::kernels::cuda
