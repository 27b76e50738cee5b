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

cudaError_t MakeMap(const LinearAttentionShape& shape, const HeadsMap& map) {
  static const EncodeFunction encode = FindEncodeFunction();
  if (encode == nullptr) {
    return cudaErrorNotSupported;
  }
  const auto bytes = [](int64_t stride, int64_t size) {
    // The stride of an index that is always 0 is free, but must be a valid one.
    return static_cast<cuuint64_t>(size == 1 ? 16 : stride * static_cast<int64_t>(sizeof(Bf16)));
  };
  const HeadsView<const Bf16>& view = map.view;
  const cuuint64_t sizes[] = {
      static_cast<cuuint64_t>(map.width), static_cast<cuuint64_t>(shape.heads),
      static_cast<cuuint64_t>(shape.tokens), static_cast<cuuint64_t>(shape.batch)};
  const cuuint64_t strides[] = {bytes(view.head_stride, shape.heads),
                                bytes(view.token_stride, shape.tokens),
                                bytes(view.batch_stride, shape.batch)};
  const cuuint32_t box[] = {64, 1, static_cast<cuuint32_t>(kLinearAttentionBlock), 1};
  const cuuint32_t steps[] = {1, 1, 1, 1};
  const CUresult result =
      encode(map.to, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, const_cast<Bf16*>(view.data), sizes,
             strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace

cudaError_t MakeHeadsMaps(const LinearAttentionShape& shape, std::initializer_list<HeadsMap> maps) {
  for (const HeadsMap& map : maps) {
    if (const cudaError_t error = MakeMap(shape, map); error != cudaSuccess) {
      return error;
    }
  }
  return cudaSuccess;
}

}  // namespace lasp::kernels::cuda
