#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/document_starts.h"
#include "kernels/linear_attention.h"

namespace lasp::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWordTokens = kLinearAttentionBlock;

__device__ int LastOf(int64_t word, uint64_t marks) {
  return static_cast<int>(word) * kWordTokens + 63 - __clzll(static_cast<long long>(marks));
}

// The last start in the words before `word`, or 0. By all threads.
__device__ int LastBefore(const uint64_t* marks, int64_t word) {
  __shared__ int last;
  if (threadIdx.x == 0) {
    last = 0;
  }
  __syncthreads();
  for (int64_t end = word; end > 0; end -= kThreads) {
    const int64_t mine = end - 1 - static_cast<int64_t>(threadIdx.x);
    const uint64_t its = mine >= 0 ? __ldg(marks + mine) : 0;
    if (its != 0) {
      atomicMax(&last, LastOf(mine, its));
    }
    if (__syncthreads_or(its != 0 ? 1 : 0) != 0) {
      break;
    }
  }
  return last;
}

__global__ void __launch_bounds__(kThreads) StartsKernel(DocumentStartsArgs args) {
  const int64_t first_query = static_cast<int64_t>(blockIdx.x) * kThreads;
  const int64_t first_token = args.documents.first_key + args.offset + first_query;
  const uint64_t* const marks = args.documents.marks + blockIdx.y * args.documents.words;
  const int64_t first_word = first_token / kWordTokens;
  int start = LastBefore(marks, first_word);
  const int64_t query = first_query + threadIdx.x;
  if (query >= args.queries) {
    return;
  }
  const int64_t token = first_token + threadIdx.x;
  uint64_t seen = ~uint64_t{0} >> (kWordTokens - 1 - token % kWordTokens);
  for (int64_t word = token / kWordTokens; word >= first_word; --word) {
    if (const uint64_t its = __ldg(marks + word) & seen; its != 0) {
      start = LastOf(word, its);
      break;
    }
    seen = ~uint64_t{0};
  }
  args.starts[blockIdx.y * args.queries + query] =
      start - static_cast<int>(args.documents.first_key);
}

}  // namespace

cudaError_t FindDocumentStarts(const DocumentStartsArgs& args, cudaStream_t stream) {
  if (args.batch == 0 || args.queries == 0) {
    return cudaSuccess;
  }
  const dim3 grid(static_cast<unsigned>((args.queries + kThreads - 1) / kThreads),
                  static_cast<unsigned>(args.batch));
  StartsKernel<<<grid, kThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace lasp::kernels::cuda
