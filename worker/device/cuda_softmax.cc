#include "worker/device/cuda_softmax.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/cuda/cudnn_library.h"
#include "kernels/cuda/document_starts.h"
#include "kernels/cuda/rotary_positions.h"
#include "kernels/cuda/softmax_attention.h"
#include "kernels/cuda/softmax_merge.h"
#include "kernels/linear_attention.h"
#include "worker/device/backend.h"
#include "worker/device/cuda_tensors.h"

namespace lasp::worker {
namespace {

namespace cuda = ::lasp::kernels::cuda;
using cuda_tensors::Bf16;
using cuda_tensors::In;
using cuda_tensors::Out;

// Parts of the scratch begin at multiples of it.
constexpr int64_t kAlignment = 256;

int64_t Aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

kernels::SoftmaxAttentionShape ShapeOf(const AttentionShape& shape, int64_t keys, int64_t offset) {
  return {.batch = shape.batch,
          .queries = shape.tokens,
          .keys = keys,
          .heads = shape.heads,
          .kv_heads = shape.kv_heads,
          .head_size = shape.head_size,
          .offset = offset};
}

// Of as many rows a sequence as the tensor has.
template <typename T>
kernels::HeadsView<T> View(const AttentionShape& shape, Tensor tensor) {
  return {static_cast<T*>(tensor.data), tensor.rows / shape.batch * tensor.row_stride,
          tensor.row_stride, shape.head_size};
}

// What lies in the scratch: what cuDNN uses; where the operation merges or adds, the parts that it
// does so with: of the output's log-sum-exps, of the output or of the gradient of q, and of those
// of k and v side by side; and where each query's document starts.
struct Scratch {
  Scratch(const AttentionShape& shape, int64_t keys, Tensor scratch, bool merges) {
    auto* const begin = static_cast<char*>(scratch.data);
    workspace = {.data = begin, .bytes = scratch.bytes() - StartBytes(shape)};
    starts = reinterpret_cast<int32_t*>(begin + workspace.bytes);
    if (merges) {
      workspace.bytes -= PartBytes(shape, keys);
      char* const parts = begin + workspace.bytes;
      log_sums = reinterpret_cast<float*>(parts);
      part = Rows(parts + LogSumBytes(shape), shape.batch * shape.tokens, QueryWidth(shape));
      kv_part = Rows(parts + LogSumBytes(shape) + Aligned(part.bytes()), shape.batch * keys,
                     KeyValueWidth(shape));
    }
  }

  static int64_t PartBytes(const AttentionShape& shape, int64_t keys) {
    constexpr int64_t kSize = SizeOf(DType::kBFloat16);
    return LogSumBytes(shape) + Aligned(shape.batch * shape.tokens * QueryWidth(shape) * kSize) +
           Aligned(shape.batch * keys * KeyValueWidth(shape) * kSize);
  }

  static int64_t StartBytes(const AttentionShape& shape) {
    return Aligned(shape.batch * shape.tokens * SizeOf(DType::kInt32));
  }

  cuda::SoftmaxWorkspace workspace;
  int32_t* starts = nullptr;
  float* log_sums = nullptr;
  Tensor part;
  Tensor kv_part;

 private:
  static Tensor Rows(void* data, int64_t rows, int64_t width) {
    return {data, DType::kBFloat16, rows, width, width};
  }

  static int64_t QueryWidth(const AttentionShape& shape) { return shape.heads * shape.head_size; }

  static int64_t KeyValueWidth(const AttentionShape& shape) {
    return 2 * shape.kv_heads * shape.head_size;
  }

  static int64_t LogSumBytes(const AttentionShape& shape) {
    return Aligned(shape.batch * shape.heads * shape.tokens * SizeOf(DType::kFloat32));
  }
};

class CudaSoftmax final : public SoftmaxOps {
 public:
  explicit CudaSoftmax(CudaContext* context) : context_(*context) {}

  void Turn(const AttentionShape& shape, double base, bool inverse, Tensor x) override {
    context_.Check(cuda::TurnByPositions({.sequences = shape.batch,
                                          .tokens = shape.tokens,
                                          .heads = x.columns / shape.head_size,
                                          .head_size = shape.head_size,
                                          .first_position = shape.first_position,
                                          .base = base,
                                          .inverse = inverse,
                                          .x = Out(x),
                                          .token_stride = x.row_stride},
                                         context_.stream()),
                   "turning queries and keys by their positions");
  }

  int64_t ScratchElements(const AttentionShape& shape, const SoftmaxReach& reach) override {
    int64_t bytes = BytesFor(ShapeOf(shape, reach.keys, reach.keys - shape.tokens));
    if (reach.merges) {
      bytes = std::max(bytes, BytesFor(ShapeOf(shape, reach.keys, reach.keys))) +
              Scratch::PartBytes(shape, reach.keys);
    }
    return (bytes + Scratch::StartBytes(shape)) / SizeOf(DType::kBFloat16);
  }

  void Output(const AttentionShape& shape, const SoftmaxForward& tensors) override {
    if (!Open()) {
      return;
    }
    const Scratch scratch(shape, tensors.keys, tensors.scratch, tensors.merges);
    const Tensor output = tensors.merges ? scratch.part : tensors.output;
    const kernels::SoftmaxAttentionShape its = ShapeOf(shape, tensors.keys, tensors.offset);
    Check(attention_->Output(
              {.shape = its,
               .q = View<const Bf16>(shape, tensors.q),
               .k = View<const Bf16>(shape, tensors.k),
               .v = View<const Bf16>(shape, tensors.v),
               .output = View<Bf16>(shape, output),
               .log_sums = tensors.merges ? scratch.log_sums : Out<float>(tensors.log_sums),
               .document_starts = Starts(shape, tensors, scratch)},
              scratch.workspace, context_.stream()),
          its);
    if (tensors.merges) {
      context_.Check(cuda::MergeSoftmaxOutput({.batch = shape.batch,
                                               .queries = shape.tokens,
                                               .heads = shape.heads,
                                               .head_size = shape.head_size,
                                               .part = View<const Bf16>(shape, scratch.part),
                                               .part_log_sums = scratch.log_sums,
                                               .output = View<Bf16>(shape, tensors.output),
                                               .log_sums = Out<float>(tensors.log_sums)},
                                              context_.stream()),
                     "merging softmax attention");
    }
  }

  void Gradients(const AttentionShape& shape, const SoftmaxBackward& tensors) override {
    if (!Open()) {
      return;
    }
    const Scratch scratch(shape, tensors.keys, tensors.scratch,
                          tensors.adds || tensors.adds_to_keys);
    const Tensor q_gradient = tensors.adds ? scratch.part : tensors.q_gradient;
    const int64_t kv_width = tensors.k.columns;
    const Tensor k_gradient =
        tensors.adds_to_keys ? scratch.kv_part.Columns(0, kv_width) : tensors.k_gradient;
    const Tensor v_gradient =
        tensors.adds_to_keys ? scratch.kv_part.Columns(kv_width, kv_width) : tensors.v_gradient;
    const kernels::SoftmaxAttentionShape its = ShapeOf(shape, tensors.keys, tensors.offset);
    Check(
        attention_->Gradients({.shape = its,
                               .q = View<const Bf16>(shape, tensors.q),
                               .k = View<const Bf16>(shape, tensors.k),
                               .v = View<const Bf16>(shape, tensors.v),
                               .output = View<const Bf16>(shape, tensors.output),
                               .log_sums = In<float>(tensors.log_sums),
                               .output_gradient = View<const Bf16>(shape, tensors.output_gradient),
                               .q_gradient = View<Bf16>(shape, q_gradient),
                               .k_gradient = View<Bf16>(shape, k_gradient),
                               .v_gradient = View<Bf16>(shape, v_gradient),
                               .document_starts = Starts(shape, tensors, scratch)},
                              scratch.workspace, context_.stream()),
        its);
    if (tensors.adds) {
      Add(scratch.part, tensors.q_gradient);
    }
    if (tensors.adds_to_keys) {
      Add(k_gradient, tensors.k_gradient);
      Add(v_gradient, tensors.v_gradient);
    }
  }

 private:
  int64_t BytesFor(const kernels::SoftmaxAttentionShape& shape) {
    int64_t bytes = 0;
    if (Open()) {
      Check(attention_->WorkspaceBytes(shape, &bytes), shape);
    }
    return bytes;
  }

  // Null where documents are not apart. `tensors`: of a forward or a backward.
  template <typename Tensors>
  const int32_t* Starts(const AttentionShape& shape, const Tensors& tensors,
                        const Scratch& scratch) {
    if (shape.document_marks.empty()) {
      return nullptr;
    }
    context_.Check(
        cuda::FindDocumentStarts({.batch = shape.batch,
                                  .queries = shape.tokens,
                                  .offset = tensors.offset,
                                  .documents = {.marks = In<uint64_t>(shape.document_marks),
                                                .words = shape.document_marks.columns / 2,
                                                .first_key = tensors.first_key},
                                  .starts = scratch.starts},
                                 context_.stream()),
        "finding where documents start");
    return scratch.starts;
  }

  void Add(Tensor part, Tensor sum) {
    context_.Check(cuda::AddRows({.rows = part.rows,
                                  .width = part.columns,
                                  .part = In(part),
                                  .part_stride = part.row_stride,
                                  .sum = Out(sum),
                                  .sum_stride = sum.row_stride},
                                 context_.stream()),
                   "adding gradients of softmax attention");
  }

  // False where something has failed, be it here or before.
  bool Open() {
    if (attention_ == nullptr && context_.ok()) {
      context_.Check(LoadSoftmaxAttention());
      if (const cuda::CudnnLibrary* const library = cuda::LoadCudnn().library; library != nullptr) {
        const cudnnStatus_t status =
            cuda::SoftmaxAttention::Create(library, context_.device(), "", &attention_);
        if (status != CUDNN_STATUS_SUCCESS) {
          context_.Check(Failure(status, "cannot start cuDNN"));
        }
      }
    }
    return attention_ != nullptr && context_.ok();
  }

  void Check(cudnnStatus_t status, const kernels::SoftmaxAttentionShape& shape) {
    if (status != CUDNN_STATUS_SUCCESS) {
      context_.Check(Failure(
          status, absl::StrCat("softmax attention of ", shape.batch, " x ", shape.queries,
                               " queries over ", shape.keys, " keys, ", shape.heads, " heads of ",
                               shape.head_size, " to ", shape.kv_heads, " of keys")));
    }
  }

  static absl::Status Failure(cudnnStatus_t status, absl::string_view what) {
    const cuda::CudnnLibrary& library = *cuda::LoadCudnn().library;
    char reason[1024] = "";
    library.get_last_error_string(reason, sizeof reason);
    const std::string message = absl::StrCat("cuDNN ", library.get_version(), ": ", what, ": ",
                                             library.get_error_string(status), " (", reason, ")");
    // Its kinds are by thousands: 3000 of what it does not compute.
    return status / 1000 == CUDNN_STATUS_NOT_SUPPORTED / 1000 ? absl::UnimplementedError(message)
                                                              : absl::InternalError(message);
  }

  CudaContext& context_;
  std::unique_ptr<cuda::SoftmaxAttention> attention_;
};

}  // namespace

absl::Status LoadSoftmaxAttention() {
  const cuda::CudnnLoading& loading = cuda::LoadCudnn();
  return loading.library != nullptr
             ? absl::OkStatus()
             : absl::FailedPreconditionError(
                   absl::StrCat("cuDNN computes softmax attention on GPUs: ", loading.failure,
                                ", or choose layer_pattern L, or device CPU"));
}

std::unique_ptr<SoftmaxOps> CreateCudaSoftmax(CudaContext* context) {
  return std::make_unique<CudaSoftmax>(context);
}

}  // namespace lasp::worker
