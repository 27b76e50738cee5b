#include "tests/bench/ablation/add_decayed_cuda.h"

namespace lasp::bench {
namespace {

using kernels::cuda::Bf16;

constexpr int kThreads = 256;

// A block a row, two columns a thread at a time.
__global__ void AddDecayedKernel(AddDecayedArgs args) {
  const auto row = static_cast<int64_t>(blockIdx.x);
  const int64_t token = row % args.tokens;
  const int64_t exponent = args.from_end ? args.tokens - 1 - token : token + 1;
  const auto* const x = reinterpret_cast<const __nv_bfloat162*>(args.x + row * args.x_stride);
  auto* const y = reinterpret_cast<__nv_bfloat162*>(args.y + row * args.y_stride);
  for (auto pair = static_cast<int64_t>(threadIdx.x); pair < args.heads * args.head_size / 2;
       pair += kThreads) {
    const double slope = args.slopes[2 * pair / args.head_size];
    const float decay = __expf(static_cast<float>(-slope * static_cast<double>(exponent)));
    const float2 added = __bfloat1622float2(x[pair]);
    const float2 sum = __bfloat1622float2(y[pair]);
    y[pair] = __floats2bfloat162_rn(sum.x + decay * added.x, sum.y + decay * added.y);
  }
}

}  // namespace

cudaError_t AddDecayedOnGpu(const AddDecayedArgs& args, cudaStream_t stream) {
  if (args.head_size % 2 != 0 || args.x_stride % 2 != 0 || args.y_stride % 2 != 0) {
    return cudaErrorInvalidValue;
  }
  AddDecayedKernel<<<static_cast<unsigned>(args.batch * args.tokens), kThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace lasp::bench
