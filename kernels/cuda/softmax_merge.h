// Softmax attention over one slice of keys added to what has been computed of others
// (kernels/softmax_attention.h): outputs merged by their log-sum-exps in fp32, rounded once, and
// parts of the gradient of q summed. Memory bound: two tensors of queries read and one written.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/bfloat16.h"
#include "kernels/linear_attention.h"

namespace lasp::kernels::cuda {

// Of queries [batch, queries, heads, head_size]; head_size is a multiple of 8, and rows start at
// multiples of 16 bytes.
struct SoftmaxMergeArgs {
  int64_t batch = 0;
  int64_t queries = 0;
  int64_t heads = 0;
  int64_t head_size = 0;
  HeadsView<const Bf16> part;
  const float* part_log_sums = nullptr;  // [batch, heads, queries]
  HeadsView<Bf16> output;                // merged with the part
  float* log_sums = nullptr;             // likewise
};

cudaError_t MergeSoftmaxOutput(const SoftmaxMergeArgs& args, cudaStream_t stream);

// sum += part, [rows, width].
struct AddRowsArgs {
  int64_t rows = 0;
  int64_t width = 0;
  const Bf16* part = nullptr;
  int64_t part_stride = 0;
  Bf16* sum = nullptr;
  int64_t sum_stride = 0;
};

cudaError_t AddRows(const AddRowsArgs& args, cudaStream_t stream);

}  // namespace lasp::kernels::cuda
