#include <cooperative_groups.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/cross_entropy.h"
#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/reduce.cuh"

namespace lasp::kernels::cuda {
namespace {

// A cluster of blocks holds a row in registers. Several blocks fit a multiprocessor, so that some
// load while others compute: the smaller, the better they mix.
constexpr int kSmallBlock = 256;
constexpr int kLargeBlock = 512;
constexpr int kPacks = 8;
constexpr int kThreadLogits = kPacks * kBf16Pack;
constexpr int kBlocksThreads = 1024;  // that one multiprocessor holds
constexpr int kMostBlocks = 8;        // what every GPU of this kind allows in a cluster
constexpr float kLog2E = 1.4426950408889634F;

// 2^x; what fp32 cannot hold as a normal number becomes zero.
__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

struct Rows {
  int64_t vocabulary;
  const Bf16* logits;
  int64_t logits_stride;
  const int32_t* labels;
  float gradient_scale;
  Bf16* gradient;  // null: the loss alone
  int64_t gradient_stride;
  float* losses;  // [rows]
};

// The sum of exp(x - maximum) over some values, with their maximum.
struct ExpSum {
  float maximum;
  float sum;
};

__device__ __forceinline__ ExpSum Merge(const ExpSum& a, const ExpSum& b) {
  const float maximum = fmaxf(a.maximum, b.maximum);
  // Where all are -infinity there is no difference to take.
  const float to_a = a.maximum == maximum ? 1.0F : Exp2((a.maximum - maximum) * kLog2E);
  const float to_b = b.maximum == maximum ? 1.0F : Exp2((b.maximum - maximum) * kLog2E);
  return {maximum, a.sum * to_a + b.sum * to_b};
}

// Over a block, for all threads.
template <int kThreads>
__device__ __forceinline__ ExpSum BlockExpSum(ExpSum own) {
  __shared__ ExpSum warps[kThreads / 32];
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    own = Merge(own, {__shfl_xor_sync(kWholeWarp, own.maximum, distance),
                      __shfl_xor_sync(kWholeWarp, own.sum, distance)});
  }
  if (threadIdx.x % 32 == 0) {
    warps[threadIdx.x / 32] = own;
  }
  __syncthreads();
  own = warps[threadIdx.x % (kThreads / 32)];
#pragma unroll
  for (int distance = kThreads / 64; distance > 0; distance /= 2) {
    own = Merge(own, {__shfl_xor_sync(kWholeWarp, own.maximum, distance),
                      __shfl_xor_sync(kWholeWarp, own.sum, distance)});
  }
  return own;
}

template <int kThreads>
__global__ void __launch_bounds__(kThreads, kBlocksThreads / kThreads)
    cross_entropy_kernel(const Rows args) {
  __shared__ ExpSum blocks[kMostBlocks];
  const auto cluster = cooperative_groups::this_cluster();
  cluster.barrier_arrive();
  const int cluster_size = static_cast<int>(cluster.num_blocks());
  const int rank = static_cast<int>(cluster.block_rank());
  const int64_t row = blockIdx.x / static_cast<unsigned>(cluster_size);
  const int packs = static_cast<int>(args.vocabulary / kBf16Pack);
  const int share = (packs + cluster_size - 1) / cluster_size;
  const int begin = rank * share + static_cast<int>(threadIdx.x);
  const int end = min(rank * share + share, packs);
  const Bf16* const logits = args.logits + row * args.logits_stride;
  Bf16Pack<kBf16Pack> x[kPacks];
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    const int pack = begin + i * kThreads;
    if (pack < end) {
      x[i] = Bf16Pack<kBf16Pack>::Load(logits + static_cast<int64_t>(pack) * kBf16Pack);
    } else {
      x[i] = Bf16Pack<kBf16Pack>::Of(0xff80);  // -infinity
    }
  }
  const int label = args.labels[row];
  // Read here: another block may overwrite it once the cluster has met.
  const bool writes_loss = rank == 0 && threadIdx.x == 0;
  const float x_label = writes_loss && label >= 0 ? __bfloat162float(logits[label]) : 0.0F;

  ExpSum own = {-INFINITY, 0};
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
#pragma unroll
    for (int e = 0; e < kBf16Pack; ++e) {
      own.maximum = fmaxf(own.maximum, x[i][e]);
    }
  }
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    x[i].Hold();
  }
  // A thread without logits has no maximum; its exponentials are of -infinity all the same.
  const float origin = own.maximum == -INFINITY ? 0.0F : own.maximum * kLog2E;
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
#pragma unroll
    for (int e = 0; e < kBf16Pack; ++e) {
      own.sum += Exp2(fmaf(x[i][e], kLog2E, -origin));
    }
  }
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    x[i].Hold();
  }
  own = BlockExpSum<kThreads>(own);
  cluster.barrier_wait();  // all blocks have begun: their shared memory may be written
  if (cluster_size > 1) {
    if (static_cast<int>(threadIdx.x) < cluster_size) {
      *cluster.map_shared_rank(&blocks[rank], threadIdx.x) = own;
    }
    cluster.sync();
    own = blocks[0];
    for (int block = 1; block < cluster_size; ++block) {
      own = Merge(own, blocks[block]);
    }
  } else {
    __syncthreads();  // x_label has been read
  }
  const float log_sum = own.maximum + logf(own.sum);
  if (writes_loss) {
    args.losses[row] = label >= 0 ? log_sum - x_label : 0.0F;
  }
  if (args.gradient == nullptr) {
    return;
  }
  const float scale = label >= 0 ? args.gradient_scale : 0.0F;
  const float shift = log_sum * kLog2E;
  Bf16* const gradient = args.gradient + row * args.gradient_stride;
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    const int pack = begin + i * kThreads;
    if (pack < end) {
      float d_x[kBf16Pack];
#pragma unroll
      for (int e = 0; e < kBf16Pack; ++e) {
        d_x[e] = label >= 0 ? scale * Exp2(fmaf(x[i][e], kLog2E, -shift)) : 0.0F;
      }
      if (pack == label / kBf16Pack && label >= 0) {
#pragma unroll
        for (int e = 0; e < kBf16Pack; ++e) {
          d_x[e] -= e == label % kBf16Pack ? scale : 0.0F;
        }
      }
      Bf16Pack<kBf16Pack>::Rounded(d_x).Store(gradient + static_cast<int64_t>(pack) * kBf16Pack);
    }
  }
}

// A block a row, reading it twice.
__global__ void __launch_bounds__(kLargeBlock) cross_entropy_slow_kernel(const Rows args) {
  constexpr int kThreads = kLargeBlock;
  const int64_t row = blockIdx.x;
  const Bf16* const logits = args.logits + row * args.logits_stride;
  const int label = args.labels[row];
  const float x_label = label >= 0 ? __bfloat162float(logits[label]) : 0.0F;
  ExpSum own = {-INFINITY, 0};
  for (int64_t c = threadIdx.x; c < args.vocabulary; c += kThreads) {
    own = Merge(own, {__bfloat162float(logits[c]), 1.0F});
  }
  own = BlockExpSum<kThreads>(own);  // after this, x_label has been read by all
  const float log_sum = own.maximum + logf(own.sum);
  if (threadIdx.x == 0) {
    args.losses[row] = label >= 0 ? log_sum - x_label : 0.0F;
  }
  if (args.gradient == nullptr) {
    return;
  }
  for (int64_t c = threadIdx.x; c < args.vocabulary; c += kThreads) {
    float d_x = 0;
    if (label >= 0) {
      d_x = Exp2((__bfloat162float(logits[c]) - log_sum) * kLog2E) - (c == label ? 1.0F : 0.0F);
    }
    args.gradient[row * args.gradient_stride + c] = __float2bfloat16_rn(args.gradient_scale * d_x);
  }
}

__global__ void __launch_bounds__(kLargeBlock)
    add_losses_kernel(int64_t rows, const float* losses, double* sum) {
  constexpr int kThreads = kLargeBlock;
  double own = 0;
  for (int64_t row = threadIdx.x; row < rows; row += kThreads) {
    own += static_cast<double>(losses[row]);
  }
  own = BlockSum<kThreads>(own);
  if (threadIdx.x == 0) {
    *sum += own;
  }
}

// As many blocks of kThreads a row as hold it.
template <int kThreads>
cudaError_t LaunchClusters(int64_t rows, const Rows& args, cudaStream_t stream) {
  unsigned blocks = 1;
  while (static_cast<int64_t>(blocks) * kThreads * kThreadLogits < args.vocabulary) {
    blocks *= 2;
  }
  cudaLaunchAttribute cluster = {};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {blocks, 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(rows) * blocks);
  config.blockDim = dim3(kThreads);
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, cross_entropy_kernel<kThreads>, args);
}

}  // namespace

int64_t CrossEntropyWorkspaceBytes(int64_t rows) {
  return rows * static_cast<int64_t>(sizeof(float));
}

cudaError_t CrossEntropy(const CrossEntropyArgs<Bf16>& args, void* workspace, cudaStream_t stream) {
  if (args.rows == 0) {
    return cudaSuccess;
  }
  auto* const losses = static_cast<float*>(workspace);
  const Rows rows = {.vocabulary = args.vocabulary,
                     .logits = args.logits,
                     .logits_stride = args.logits_stride,
                     .labels = args.labels,
                     .gradient_scale = static_cast<float>(args.gradient_scale),
                     .gradient = args.gradient,
                     .gradient_stride = args.gradient_stride,
                     .losses = losses};
  const bool aligned = args.vocabulary % kBf16Pack == 0 &&
                       Aligned16(args.logits, args.logits_stride) &&
                       Aligned16(args.gradient, args.gradient_stride);
  const int64_t most = int64_t{kMostBlocks} * kThreadLogits;
  if (aligned && args.vocabulary <= most * kLargeBlock) {
    const cudaError_t error = args.vocabulary <= most * kSmallBlock
                                  ? LaunchClusters<kSmallBlock>(args.rows, rows, stream)
                                  : LaunchClusters<kLargeBlock>(args.rows, rows, stream);
    if (error != cudaSuccess) {
      return error;
    }
  } else {
    cross_entropy_slow_kernel<<<static_cast<unsigned>(args.rows), kLargeBlock, 0, stream>>>(rows);
  }
  if (args.loss_sum != nullptr) {
    add_losses_kernel<<<1, kLargeBlock, 0, stream>>>(args.rows, losses, args.loss_sum);
  }
  return cudaGetLastError();
}

}  // namespace lasp::kernels::cuda
