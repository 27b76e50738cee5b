// The marks of documents' starts, a bit a token.
#include "kernels/cuda/linear_attention.h"

namespace lasp::kernels::cuda {
namespace {

__global__ void MarkKernel(const DocumentMarksArgs args) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= args.count) {
    return;
  }
  const int64_t chunks = (args.tokens + kLinearAttentionBlock - 1) / kLinearAttentionBlock;
  const int64_t row = args.starts[i] / args.tokens;
  const int64_t token = args.starts[i] % args.tokens;
  static_assert(sizeof(unsigned long long) == sizeof(uint64_t));
  atomicOr(reinterpret_cast<unsigned long long*>(args.marks + row * chunks +
                                                 token / kLinearAttentionBlock),
           1ull << (token % kLinearAttentionBlock));
}

}  // namespace

cudaError_t MarkDocumentStarts(const DocumentMarksArgs& args, cudaStream_t stream) {
  if (args.batch < 1 || args.tokens < 1 || args.marks == nullptr) {
    return cudaErrorInvalidValue;
  }
  const int64_t chunks = (args.tokens + kLinearAttentionBlock - 1) / kLinearAttentionBlock;
  const cudaError_t error = cudaMemsetAsync(
      args.marks, 0, static_cast<size_t>(args.batch * chunks) * sizeof(uint64_t), stream);
  if (error != cudaSuccess || args.count == 0) {
    return error;
  }
  constexpr int kThreads = 128;
  MarkKernel<<<static_cast<unsigned>((args.count + kThreads - 1) / kThreads), kThreads, 0,
               stream>>>(args);
  return cudaGetLastError();
}

}  // namespace lasp::kernels::cuda
