#include "kernels/cuda/linear_attention_theta_sums.h"

namespace lasp::kernels::cuda {
namespace {

// theta_gradient[h, c] += the sums of all rows of the batch and segments, in a fixed order.
__global__ void SumKernel(const float* sums, int64_t batch, int64_t heads, int64_t segments,
                          int64_t key_size, float* theta_gradient) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= heads * key_size) {
    return;
  }
  const int64_t head = i / key_size;
  const int64_t column = i % key_size;
  double total = 0;
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t part = 0; part < 2 * segments; ++part) {
      total +=
          static_cast<double>(sums[((b * heads + head) * segments * 2 + part) * key_size + column]);
    }
  }
  theta_gradient[i] = static_cast<float>(static_cast<double>(theta_gradient[i]) + total);
}

}  // namespace

int64_t ThetaGradientWorkspaceElements(const LinearAttentionProblem& problem) {
  return problem.shape.batch * problem.shape.heads * SegmentCount(problem) * 2 *
         problem.shape.key_size;
}

cudaError_t AddThetaSums(const LinearAttentionShape& shape, int segments, const float* sums,
                         float* theta_gradient, cudaStream_t stream) {
  constexpr int kThreads = 128;
  const int64_t elements = shape.heads * shape.key_size;
  SumKernel<<<static_cast<unsigned>((elements + kThreads - 1) / kThreads), kThreads, 0, stream>>>(
      sums, shape.batch, shape.heads, segments, shape.key_size, theta_gradient);
  return cudaGetLastError();
}

}  // namespace lasp::kernels::cuda
