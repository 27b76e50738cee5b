// kernels/gemm.h on the GPU, through cuBLASLt: A and B in bf16, sums in fp32, C in bf16 or fp32.
//
// cuBLASLt has many algorithms for a product, and which is fastest must be measured. Here are the
// parts: candidates for a shape, and a product by a given algorithm. Who measures and what is
// remembered is the caller's choice. An algorithm gives the same bits every time on one kind of
// GPU.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/bfloat16.h"

namespace lasp::kernels::cuda {

// All that the choice of an algorithm depends on. Names as in kernels/gemm.h.
struct GemmShape {
  bool transpose_a = false;
  bool transpose_b = false;
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  int64_t a_stride = 0;
  int64_t b_stride = 0;
  int64_t c_stride = 0;
  bool fp32_output = false;     // C is fp32, else bf16
  bool adds = false;            // beta is not 0
  int32_t alignment = 16;       // in bytes, of every row of A, B and C: 2, 4, 8 or 16
  int32_t multiprocessors = 0;  // how many to fill, leaving the others to communication; 0: all

  bool operator==(const GemmShape&) const = default;
};

struct GemmOperands {
  float alpha = 1;
  const Bf16* a = nullptr;
  const Bf16* b = nullptr;
  float beta = 0;     // 0 unless the shape adds
  void* c = nullptr;  // float or Bf16; must not overlap A or B
};

// Opaque; may be stored and used again with the same version of cuBLASLt on the same kind of GPU.
struct GemmAlgorithm {
  uint64_t words[8] = {};
  int64_t workspace_bytes = 0;  // what it needs

  bool operator==(const GemmAlgorithm&) const = default;
};

// The alignment of a shape whose rows start at `pointer` and lie `stride_bytes` apart: 2 to 16.
int32_t RowAlignment(const void* pointer, int64_t stride_bytes);

// Writes at most `most` algorithms, the most promising first, and their count. None needs more than
// `workspace_bytes` or sums in an order that changes from run to run.
cublasStatus_t GemmCandidates(cublasLtHandle_t handle, const GemmShape& shape,
                              int64_t workspace_bytes, int most, GemmAlgorithm* algorithms,
                              int* count);

// `workspace`: algorithm.workspace_bytes, aligned to 256 bytes, not shared with other streams.
cublasStatus_t Gemm(cublasLtHandle_t handle, const GemmShape& shape, const GemmOperands& operands,
                    const GemmAlgorithm& algorithm, void* workspace, cudaStream_t stream);

}  // namespace lasp::kernels::cuda
