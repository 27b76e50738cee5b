#include "worker/device/cuda_left_product.h"

#include "kernels/cuda/left_product_attention.h"
#include "worker/device/cuda_tensors.h"

namespace lasp::worker {

namespace cuda = ::lasp::kernels::cuda;
using cuda_tensors::HeadsIn;
using cuda_tensors::HeadsOut;
using cuda_tensors::Out;
using cuda_tensors::ProblemOf;

int64_t CudaLeftProduct::ScratchElements(const AttentionShape& shape) const {
  // While memory is being planned theta has no place yet; that it exists is what counts.
  static constexpr double kAny = 0;
  kernels::LinearAttentionShape planned = ProblemOf(shape).shape;
  planned.theta = shape.lrpe ? &kAny : nullptr;
  return cuda::LeftProductWorkspaceElements(planned);
}

void CudaLeftProduct::Output(const AttentionShape& shape, const LeftProductForward& tensors) {
  context_.Check(cuda::LeftProductOutput({.shape = ProblemOf(shape).shape,
                                          .distance = tensors.distance,
                                          .q = HeadsIn(shape, tensors.q),
                                          .k = HeadsIn(shape, tensors.k),
                                          .v = HeadsIn(shape, tensors.v),
                                          .adds = tensors.adds,
                                          .output = HeadsOut(shape, tensors.output),
                                          .workspace = Out(tensors.scratch)},
                                         context_.stream()),
                 "the left product");
}

void CudaLeftProduct::Gradients(const AttentionShape& shape, const LeftProductBackward& tensors) {
  if (!tensors.theta_gradient.empty()) {
    context_.Check(cudaErrorNotSupported, "the left product's gradient of rotary frequencies");
    return;
  }
  context_.Check(
      cuda::LeftProductGradients({.shape = ProblemOf(shape).shape,
                                  .distance = tensors.distance,
                                  .q = HeadsIn(shape, tensors.q),
                                  .k = HeadsIn(shape, tensors.k),
                                  .v = HeadsIn(shape, tensors.v),
                                  .output_gradient = HeadsIn(shape, tensors.output_gradient),
                                  .adds = tensors.adds,
                                  .q_gradient = HeadsOut(shape, tensors.q_gradient),
                                  .k_gradient = HeadsOut(shape, tensors.k_gradient),
                                  .v_gradient = HeadsOut(shape, tensors.v_gradient),
                                  .workspace = Out(tensors.scratch)},
                                 context_.stream()),
      "the gradients of the left product");
}

}  // namespace lasp::worker
