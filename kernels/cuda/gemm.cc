#include "kernels/cuda/gemm.h"

#include <algorithm>
#include <cstring>

namespace lasp::kernels::cuda {
namespace {

#define LASP_RETURN_IF_CUBLAS_ERROR(expression)  \
  do {                                           \
    const cublasStatus_t status_ = (expression); \
    if (status_ != CUBLAS_STATUS_SUCCESS) {      \
      return status_;                            \
    }                                            \
  } while (false)

static_assert(sizeof(cublasLtMatmulAlgo_t) == sizeof(GemmAlgorithm::words));

// cuBLASLt counts by columns: its product is C^T = op(B)^T op(A)^T, whose matrices are ours as they
// lie in memory. So its A is our B, and its m our n.
struct Product {
  cublasLtMatmulDescOpaque_t operation;
  cublasLtMatrixLayoutOpaque_t a;
  cublasLtMatrixLayoutOpaque_t b;
  cublasLtMatrixLayoutOpaque_t c;
};

cublasStatus_t InitLayout(cublasLtMatrixLayoutOpaque_t* layout, cudaDataType_t type, int64_t rows,
                          int64_t columns, int64_t stride) {
  // A matrix [rows, columns] by rows is one of [columns, rows] by columns.
  return cublasLtMatrixLayoutInit(layout, type, static_cast<uint64_t>(columns),
                                  static_cast<uint64_t>(rows), stride);
}

template <typename Value>
cublasStatus_t Set(cublasLtMatmulDescOpaque_t* operation, cublasLtMatmulDescAttributes_t attribute,
                   Value value) {
  return cublasLtMatmulDescSetAttribute(operation, attribute, &value, sizeof(value));
}

template <typename Value>
cublasStatus_t Set(cublasLtMatmulPreferenceOpaque_t* preference,
                   cublasLtMatmulPreferenceAttributes_t attribute, Value value) {
  return cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value));
}

cublasStatus_t InitProduct(const GemmShape& shape, Product* product) {
  LASP_RETURN_IF_CUBLAS_ERROR(
      cublasLtMatmulDescInit(&product->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  const auto transpose = [](bool yes) -> int32_t { return yes ? CUBLAS_OP_T : CUBLAS_OP_N; };
  LASP_RETURN_IF_CUBLAS_ERROR(
      Set(&product->operation, CUBLASLT_MATMUL_DESC_TRANSA, transpose(shape.transpose_b)));
  LASP_RETURN_IF_CUBLAS_ERROR(
      Set(&product->operation, CUBLASLT_MATMUL_DESC_TRANSB, transpose(shape.transpose_a)));
  if (shape.multiprocessors > 0) {
    LASP_RETURN_IF_CUBLAS_ERROR(
        Set(&product->operation, CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, shape.multiprocessors));
  }
  const int64_t k = shape.k;
  LASP_RETURN_IF_CUBLAS_ERROR(InitLayout(&product->a, CUDA_R_16BF, shape.transpose_b ? shape.n : k,
                                         shape.transpose_b ? k : shape.n, shape.b_stride));
  LASP_RETURN_IF_CUBLAS_ERROR(InitLayout(&product->b, CUDA_R_16BF, shape.transpose_a ? k : shape.m,
                                         shape.transpose_a ? shape.m : k, shape.a_stride));
  return InitLayout(&product->c, shape.fp32_output ? CUDA_R_32F : CUDA_R_16BF, shape.m, shape.n,
                    shape.c_stride);
}

}  // namespace

int32_t RowAlignment(const void* pointer, int64_t stride_bytes) {
  const auto bits = reinterpret_cast<uintptr_t>(pointer) | static_cast<uintptr_t>(stride_bytes);
  int32_t alignment = 16;
  while (alignment > 2 && bits % static_cast<uintptr_t>(alignment) != 0) {
    alignment /= 2;
  }
  return alignment;
}

cublasStatus_t GemmCandidates(cublasLtHandle_t handle, const GemmShape& shape,
                              int64_t workspace_bytes, int most, GemmAlgorithm* algorithms,
                              int* count) {
  Product product;
  LASP_RETURN_IF_CUBLAS_ERROR(InitProduct(shape, &product));
  cublasLtMatmulPreferenceOpaque_t preference;
  LASP_RETURN_IF_CUBLAS_ERROR(cublasLtMatmulPreferenceInit(&preference));
  LASP_RETURN_IF_CUBLAS_ERROR(Set(&preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                  static_cast<uint64_t>(workspace_bytes)));
  LASP_RETURN_IF_CUBLAS_ERROR(Set(&preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                  static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE |
                                                        CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE)));
  for (const cublasLtMatmulPreferenceAttributes_t alignment :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    LASP_RETURN_IF_CUBLAS_ERROR(
        Set(&preference, alignment, static_cast<uint32_t>(shape.alignment)));
  }
  constexpr int kMost = 64;
  cublasLtMatmulHeuristicResult_t results[kMost];
  int found = 0;
  LASP_RETURN_IF_CUBLAS_ERROR(cublasLtMatmulAlgoGetHeuristic(
      handle, &product.operation, &product.a, &product.b, &product.c, &product.c, &preference,
      std::min(most, kMost), results, &found));
  *count = 0;
  for (int i = 0; i < found; ++i) {
    if (results[i].state == CUBLAS_STATUS_SUCCESS) {
      GemmAlgorithm& algorithm = algorithms[(*count)++];
      std::memcpy(algorithm.words, &results[i].algo, sizeof(algorithm.words));
      algorithm.workspace_bytes = static_cast<int64_t>(results[i].workspaceSize);
    }
  }
  return *count > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t Gemm(cublasLtHandle_t handle, const GemmShape& shape, const GemmOperands& operands,
                    const GemmAlgorithm& algorithm, void* workspace, cudaStream_t stream) {
  Product product;
  LASP_RETURN_IF_CUBLAS_ERROR(InitProduct(shape, &product));
  cublasLtMatmulAlgo_t algo;
  std::memcpy(&algo, algorithm.words, sizeof(algo));
  return cublasLtMatmul(handle, &product.operation, &operands.alpha, operands.b, &product.a,
                        operands.a, &product.b, &operands.beta, operands.c, &product.c, operands.c,
                        &product.c, &algo, workspace,
                        static_cast<size_t>(algorithm.workspace_bytes), stream);
}

#undef LASP_RETURN_IF_CUBLAS_ERROR

}  // namespace lasp::kernels::cuda
