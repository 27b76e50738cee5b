// A GPU behind the device seam: memory, and what an update needs; the rest lies in the classes
// below.
#include "worker/device/cuda_backend.h"

#include <algorithm>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/cuda/adamw.h"
#include "kernels/cuda/cross_entropy.h"
#include "kernels/cuda/embedding.h"
#include "kernels/cuda/global_norm.h"
#include "kernels/cuda/vector_ops.h"
#include "proto/rpc/status_macros.h"
#include "worker/device/cuda_layers.h"
#include "worker/device/cuda_snapshot.h"
#include "worker/device/cuda_stash.h"
#include "worker/device/cuda_stream.h"
#include "worker/device/cuda_tensors.h"
#include "worker/device/pinned_word.h"

namespace lasp::worker {
namespace {

namespace cuda = ::lasp::kernels::cuda;
using cuda_tensors::Bf16;
using cuda_tensors::In;
using cuda_tensors::Out;

// Calls `body` with a null pointer to the type of a tensor of numbers.
template <typename Body>
cudaError_t WithType(DType type, const Body& body) {
  switch (type) {
    case DType::kFloat32:
      return body(static_cast<float*>(nullptr));
    case DType::kFloat64:
      return body(static_cast<double*>(nullptr));
    case DType::kBFloat16:
      return body(static_cast<Bf16*>(nullptr));
    case DType::kInt32:
      break;
  }
  return cudaErrorInvalidValue;
}

class HopperBackend : public CudaLayers {
 public:
  HopperBackend(std::unique_ptr<CudaContext> context, std::unique_ptr<PinnedWord> broken_off)
      : CudaLayers(std::move(context)), broken_off_(std::move(broken_off)) {}

  DType activation_type() const override { return DType::kBFloat16; }

  DType accumulation_type() const override { return DType::kFloat32; }

  // A chunk of a gigabyte.
  int64_t logits_at_a_time() const override { return int64_t{8192} * 64000; }

  int64_t WorkspaceBytes(const WorkspaceShape& shape) const override {
    return std::max({CudaGemm::kWorkspaceBytes, cuda::CrossEntropyWorkspaceBytes(shape.rows),
                     cuda::EmbeddingBackwardWorkspaceBytes(shape.rows, shape.hidden_size),
                     cuda::SumOfSquaresWorkspaceBytes(), AttentionWorkspaceBytes(shape.attention)});
  }

  void UseWorkspace(Tensor workspace) override { context().set_workspace(workspace.data); }

  bool wants_rehearsal() const override { return true; }

  void Rehearse(bool rehearsing) override { context().gemm().set_measuring(rehearsing); }

  std::string GemmRecord() override { return context().gemm().Record(); }

  absl::StatusOr<bool> PinGemms(const std::string& record) override {
    return context().gemm().Pin(record);
  }

  cudaStream_t stream() const override { return context().stream(); }

  void IssueTo(cudaStream_t stream) override { context().IssueTo(stream); }

  void StopUpdates() override { broken_off_->Store(1); }

  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(int64_t bytes) override {
    return AllocateDeviceMemory(bytes);
  }

  absl::StatusOr<std::unique_ptr<HostSnapshot>> CreateSnapshot(int64_t bytes) override {
    return CreateCudaSnapshot(&context(), bytes);
  }

  absl::StatusOr<std::unique_ptr<HostStash>> CreateStash(int64_t slots,
                                                         int64_t slot_bytes) override {
    return CreateCudaStash(&context(), slots, slot_bytes);
  }

  std::optional<int64_t> FreeBytes() override {
    size_t free = 0;
    size_t total = 0;
    context().Check(cudaMemGetInfo(&free, &total), "asking for the GPU's free memory");
    return static_cast<int64_t>(free);
  }

  absl::Status Synchronize() override {
    context().Check(cudaStreamSynchronize(context().stream()), "the work of the GPU");
    return context().status();
  }

  Phase EnterPhase(Phase phase) override {
    Phase previous = Phase::kOther;
    context().Check(context().phases().Enter(phase, &previous), "marking a phase");
    return previous;
  }

  PhaseSeconds TakePhaseSeconds() override {
    PhaseSeconds seconds;
    context().Check(context().phases().Take(&seconds), "reading the phases");
    return seconds;
  }

  void EnterHelperThread() override {
    context().Check(cudaSetDevice(context().device()), "choosing the GPU");
  }

  // The source may change once this returns; the device gets it in its turn.
  void CopyFromHost(const void* source, Tensor destination) override {
    context().Check(
        cudaMemcpyAsync(destination.data, source, static_cast<size_t>(destination.bytes()),
                        cudaMemcpyHostToDevice, context().stream()),
        "copying to the GPU");
  }

  void CopyToHost(Tensor source, void* destination) override {
    context().Check(cudaMemcpyAsync(destination, source.data, static_cast<size_t>(source.bytes()),
                                    cudaMemcpyDeviceToHost, context().stream()),
                    "copying from the GPU");
    context().Check(cudaStreamSynchronize(context().stream()), "copying from the GPU");
  }

  void Convert(Tensor source, Tensor destination) override {
    context().Check(WithType(source.dtype,
                             [&](auto* from) {
                               return WithType(destination.dtype, [&](auto* to) {
                                 using From = std::remove_pointer_t<decltype(from)>;
                                 using To = std::remove_pointer_t<decltype(to)>;
                                 return cuda::Convert<From, To>(source.count(), In<From>(source),
                                                                Out<To>(destination),
                                                                context().stream());
                               });
                             }),
                    "a conversion");
  }

  void Copy(Tensor source, Tensor destination) override {
    const auto bytes_of = [&](int64_t elements) {
      return static_cast<size_t>(elements * SizeOf(source.dtype));
    };
    context().Check(cudaMemcpy2DAsync(destination.data, bytes_of(destination.row_stride),
                                      source.data, bytes_of(source.row_stride),
                                      bytes_of(source.columns), static_cast<size_t>(source.rows),
                                      cudaMemcpyDeviceToDevice, context().stream()),
                    "copying rows");
  }

  void Fill(double value, Tensor x) override {
    context().Check(WithType(x.dtype,
                             [&](auto* type) {
                               using T = std::remove_pointer_t<decltype(type)>;
                               return cuda::Fill<T>(x.count(), value, Out<T>(x),
                                                    context().stream());
                             }),
                    "filling");
  }

  void Axpy(double factor, Tensor x, Tensor y) override {
    context().Check(WithType(x.dtype,
                             [&](auto* type) {
                               using T = std::remove_pointer_t<decltype(type)>;
                               return cuda::Axpy<T>(x.count(), factor, In<T>(x), Out<T>(y),
                                                    context().stream());
                             }),
                    "adding");
  }

  void SumOfSquares(Tensor values, Tensor sum) override {
    context().Check(
        cuda::SumOfSquares(
            {.count = values.count(), .values = In<float>(values), .sum = Out<double>(sum)},
            context().workspace(), context().stream()),
        "the gradient's norm");
  }

  void JudgeUpdate(const AdamWConstants& constants, double max_gradient_norm, Tensor loss,
                   Tensor sum_of_squares, Tensor control) override {
    context().Check(cuda::JudgeUpdate({.max_gradient_norm = max_gradient_norm,
                                       .beta1 = constants.beta1,
                                       .beta2 = constants.beta2,
                                       .loss = In<double>(loss),
                                       .sum_of_squares = In<double>(sum_of_squares),
                                       .control = Out<kernels::UpdateControl>(control),
                                       .broken_off = broken_off_->on_device()},
                                      context().stream()),
                    "judging an update");
  }

  void AdamW(const AdamWConstants& constants, Tensor control,
             const std::vector<AdamWTensors>& tensors) override {
    // Of one kind all.
    if (!tensors.empty() && tensors.front().first_moment.dtype == DType::kBFloat16) {
      Update<Bf16>(constants, control, tensors);
    } else {
      Update<float>(constants, control, tensors);
    }
  }

 private:
  template <typename Moment>
  void Update(const AdamWConstants& constants, Tensor control,
              const std::vector<AdamWTensors>& tensors) {
    std::vector<cuda::AdamWTensor<Moment>> ranges;
    ranges.reserve(tensors.size());
    for (const AdamWTensors& range : tensors) {
      ranges.push_back({.count = range.master.count(),
                        .parameter = Out<float>(range.master),
                        .gradient = In<float>(range.gradient),
                        .first_moment = Out<Moment>(range.first_moment),
                        .second_moment = Out<Moment>(range.second_moment),
                        .copy = Out(range.weight),
                        .weight_decay = static_cast<float>(range.weight_decay),
                        .first_element = range.first_element});
    }
    context().Check(cuda::AdamW<Moment>({.tensors = ranges.data(),
                                         .tensor_count = static_cast<int>(ranges.size()),
                                         .beta1 = static_cast<float>(constants.beta1),
                                         .beta2 = static_cast<float>(constants.beta2),
                                         .epsilon = static_cast<float>(constants.epsilon),
                                         .control = In<kernels::UpdateControl>(control)},
                                        context().stream()),
                    "an update");
  }

  const std::unique_ptr<PinnedWord> broken_off_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CudaBackend>> CreateCudaBackend(const CudaBackendOptions& options) {
  LASP_ASSIGN_OR_RETURN(std::unique_ptr<CudaContext> context, CudaContext::Create(options.device));
  if (!options.gemm_record.empty()) {
    LASP_RETURN_IF_ERROR(context->gemm().Pin(options.gemm_record).status());
  }
  LASP_ASSIGN_OR_RETURN(std::unique_ptr<PinnedWord> broken_off, PinnedWord::Create());
  return std::make_unique<HopperBackend>(std::move(context), std::move(broken_off));
}

}  // namespace lasp::worker
