#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/map_rows.cuh"
#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/softmax_merge.h"

namespace lasp::kernels::cuda {
namespace {

constexpr int kThreads = 256;

using Pack = Bf16Pack<kBf16Pack>;

__device__ Pack Mixed(const Pack& a, float a_weight, const Pack& b, float b_weight) {
  float mixed[kBf16Pack];
#pragma unroll
  for (int i = 0; i < kBf16Pack; ++i) {
    mixed[i] = a[i] * a_weight + b[i] * b_weight;
  }
  return Pack::Rounded(mixed);
}

// A row of threads for one head of one query; all of them read the log-sum-exps before the first of
// them writes one.
__global__ void __launch_bounds__(kThreads) MergeKernel(SoftmaxMergeArgs args) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  const bool there = row < args.batch * args.queries * args.heads;
  const int64_t head = row % args.heads;
  const int64_t query = row / args.heads % args.queries;
  const int64_t batch = row / args.heads / args.queries;
  const int64_t at = (batch * args.heads + head) * args.queries + query;
  const float whole = there ? args.log_sums[at] : 0.0F;
  const float part = there ? args.part_log_sums[at] : 0.0F;
  __syncthreads();
  if (!there) {
    return;
  }
  const float highest = fmaxf(whole, part);
  const float merged = highest + logf(expf(whole - highest) + expf(part - highest));
  const int64_t column = head * args.output.head_stride + threadIdx.x * kBf16Pack;
  Bf16* const output = args.output.data + batch * args.output.batch_stride +
                       query * args.output.token_stride + column;
  const Bf16* const added = args.part.data + batch * args.part.batch_stride +
                            query * args.part.token_stride + head * args.part.head_stride +
                            threadIdx.x * kBf16Pack;
  Mixed(Pack::Load(output), expf(whole - merged), Pack::Load(added), expf(part - merged))
      .Store(output);
  if (threadIdx.x == 0) {
    args.log_sums[at] = merged;
  }
}

template <int N>
struct Add {
  struct In {
    Bf16Pack<N> part;
    Bf16Pack<N> sum;
  };

  AddRowsArgs args;

  __device__ In Load(int64_t row, int column) const {
    return {Bf16Pack<N>::Load(args.part + row * args.part_stride + column),
            Bf16Pack<N>::Load(args.sum + row * args.sum_stride + column)};
  }

  __device__ void Store(int64_t row, int column, const In& in) const {
    float sum[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      sum[i] = in.sum[i] + in.part[i];
    }
    Bf16Pack<N>::Rounded(sum).Store(args.sum + row * args.sum_stride + column);
  }
};

bool Fits(const HeadsView<const Bf16>& view) {
  return Aligned16(view.data, view.token_stride) && Aligned16(view.data, view.batch_stride) &&
         Aligned16(view.data, view.head_stride);
}

}  // namespace

cudaError_t MergeSoftmaxOutput(const SoftmaxMergeArgs& args, cudaStream_t stream) {
  const int64_t rows = args.batch * args.queries * args.heads;
  if (rows == 0) {
    return cudaSuccess;
  }
  const auto packs = static_cast<unsigned>(args.head_size / kBf16Pack);
  if (args.head_size % kBf16Pack != 0 || packs == 0 || packs > kThreads || !Fits(args.output) ||
      !Fits(args.part)) {
    return cudaErrorInvalidValue;
  }
  const dim3 block(packs, kThreads / packs);
  MergeKernel<<<static_cast<unsigned>((rows + block.y - 1) / block.y), block, 0, stream>>>(args);
  return cudaGetLastError();
}

cudaError_t AddRows(const AddRowsArgs& args, cudaStream_t stream) {
  return MapRows(args.rows, args.width,
                 Aligned16(args.part, args.part_stride) && Aligned16(args.sum, args.sum_stride),
                 Add<kBf16Pack>{args}, Add<1>{args}, stream);
}

}  // namespace lasp::kernels::cuda
