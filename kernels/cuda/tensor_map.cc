#include "kernels/cuda/tensor_map.h"

namespace lasp::kernels::cuda {
namespace {

using EncodeFunction = decltype(&cuTensorMapEncodeTiled);

EncodeFunction FindEncodeFunction() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                             12000, cudaEnableDefault, &found);
  if (error != cudaSuccess || found != cudaDriverEntryPointSuccess) {
    return nullptr;
  }
  return reinterpret_cast<EncodeFunction>(function);
}

}  // namespace

cudaError_t MakeHeadsMap(const HeadsView<const Bf16>& view, int64_t batch, int64_t tokens,
                         int64_t heads, int64_t width, uint32_t rows, CUtensorMap* map) {
  static const EncodeFunction encode = FindEncodeFunction();
  if (encode == nullptr) {
    return cudaErrorNotSupported;
  }
  const auto bytes = [](int64_t stride, int64_t size) {
    // The stride of an index that is always 0 is free, but must be a valid one.
    return static_cast<cuuint64_t>(size == 1 ? 16 : stride * static_cast<int64_t>(sizeof(Bf16)));
  };
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(width), static_cast<cuuint64_t>(heads),
                              static_cast<cuuint64_t>(tokens), static_cast<cuuint64_t>(batch)};
  const cuuint64_t strides[] = {bytes(view.head_stride, heads), bytes(view.token_stride, tokens),
                                bytes(view.batch_stride, batch)};
  const cuuint32_t box[] = {64, 1, rows, 1};
  const cuuint32_t steps[] = {1, 1, 1, 1};
  const CUresult result =
      encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, const_cast<Bf16*>(view.data), sizes, strides,
             box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace lasp::kernels::cuda
