// A GPU behind the device seam: linear attention without states.
#pragma once

#include <cstdint>

#include "worker/device/backend.h"
#include "worker/device/cuda_context.h"

namespace lasp::worker {

class CudaLeftProduct final : public LeftProduct {
 public:
  // `context` must outlive the object.
  explicit CudaLeftProduct(CudaContext* context) : context_(*context) {}

  int64_t ScratchElements(const AttentionShape& shape) const override;
  void Output(const AttentionShape& shape, const LeftProductForward& tensors) override;
  void Gradients(const AttentionShape& shape, const LeftProductBackward& tensors) override;

 private:
  CudaContext& context_;
};

}  // namespace lasp::worker
