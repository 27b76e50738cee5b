#include "kernels/cuda/softmax_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace lasp::kernels::cuda {
namespace {

constexpr int64_t kAlignment = 256;
// As much is held of scores' gradients, so that two runs give the same bits: 16 heads of 2,896
// queries and keys.
constexpr int64_t kMostScoreBytes = int64_t{256} << 20;

#define LASP_RETURN_IF_CUDNN_ERROR(expression)  \
  do {                                          \
    const cudnnStatus_t status_ = (expression); \
    if (status_ != CUDNN_STATUS_SUCCESS) {      \
      return status_;                           \
    }                                           \
  } while (false)

int64_t Aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

template <typename T>
HeadsStrides StridesOf(const HeadsView<T>& view) {
  return {view.batch_stride, view.token_stride, view.head_stride};
}

HeadsStrides Contiguous(int64_t heads, int64_t tokens, int64_t size) {
  return {tokens * heads * size, heads * size, size};
}

SoftmaxGraphShape GraphShapeOf(const SoftmaxOutputArgs& args) {
  return {.shape = args.shape,
          .q = StridesOf(args.q),
          .k = StridesOf(args.k),
          .v = StridesOf(args.v),
          .output = StridesOf(args.output),
          .output_gradient = {},
          .q_gradient = {},
          .k_gradient = {},
          .v_gradient = {},
          .documents = args.document_starts != nullptr};
}

SoftmaxGraphShape GraphShapeOf(const SoftmaxGradientsArgs& args, bool deterministic) {
  return {.shape = args.shape,
          .q = StridesOf(args.q),
          .k = StridesOf(args.k),
          .v = StridesOf(args.v),
          .output = StridesOf(args.output),
          .output_gradient = StridesOf(args.output_gradient),
          .q_gradient = StridesOf(args.q_gradient),
          .k_gradient = StridesOf(args.k_gradient),
          .v_gradient = StridesOf(args.v_gradient),
          .documents = args.document_starts != nullptr,
          .deterministic = deterministic};
}

std::unique_ptr<CudnnGraph> GraphOf(const CudnnLibrary* library, bool backward,
                                    const SoftmaxGraphShape& of) {
  return backward ? SoftmaxGradientsGraph(library, of) : SoftmaxOutputGraph(library, of);
}

bool HoldsScores(const SoftmaxAttentionShape& shape) {
  return shape.batch * shape.heads * shape.queries * shape.keys *
             static_cast<int64_t>(sizeof(Bf16)) <=
         kMostScoreBytes;
}

// Of the workspace, what the gradients' graph writes and what is left to the engine.
struct GradientsMemory {
  GradientsMemory(const SoftmaxAttentionShape& shape, bool deterministic) {
    const int64_t rows = shape.batch * shape.heads * shape.queries;
    means_bytes = Aligned(rows * static_cast<int64_t>(sizeof(float)));
    sums_bytes =
        deterministic ? 0 : Aligned(rows * shape.head_size * static_cast<int64_t>(sizeof(float)));
  }

  int64_t bytes() const { return means_bytes + sums_bytes; }

  int64_t means_bytes = 0;
  int64_t sums_bytes = 0;
};

// Read by a run before it returns.
struct Scalars {
  explicit Scalars(const SoftmaxAttentionShape& shape)
      : scale(static_cast<float>(1 / std::sqrt(static_cast<double>(shape.head_size)))),
        queries(static_cast<int32_t>(shape.queries)),
        keys(static_cast<int32_t>(shape.keys)) {}

  // Those that the graph of the shape has, and where documents start.
  void AddTo(const SoftmaxAttentionShape& shape, const int32_t* document_starts,
             std::vector<CudnnBinding>* bindings) const {
    bindings->push_back({kScale, &scale});
    if (document_starts != nullptr) {
      bindings->push_back({kDocumentStarts, document_starts});
      bindings->push_back({kOutside, &outside});
    }
    if (MaskOf(shape) == SoftmaxMask::kNone) {
      return;
    }
    bindings->push_back({kUnseen, &unseen});
    if (shape.queries != shape.keys) {
      bindings->push_back({kQueryCount, &queries});
      bindings->push_back({kKeyCount, &keys});
    }
  }

  float scale;
  float unseen = -std::numeric_limits<float>::infinity();
  // Far below any score. Where a row has nothing else its differences are numbers, and keep their
  // bits when a power of two is taken in the place of e.
  float outside = -32768;
  float one = 1;
  int32_t queries;
  int32_t keys;
};

}  // namespace

cudnnStatus_t SoftmaxAttention::Create(const CudnnLibrary* library, int device,
                                       const std::string& description,
                                       std::unique_ptr<SoftmaxAttention>* made) {
  std::unique_ptr<SoftmaxAttention> attention(new SoftmaxAttention(library, device, description));
  LASP_RETURN_IF_CUDNN_ERROR(attention->device_.status());
  if (description.empty()) {
    LASP_RETURN_IF_CUDNN_ERROR(library->create(&attention->handle_));
  }
  *made = std::move(attention);
  return CUDNN_STATUS_SUCCESS;
}

SoftmaxAttention::~SoftmaxAttention() {
  planned_.clear();
  if (handle_ != nullptr) {
    (void)library_.destroy(handle_);
  }
}

cudnnStatus_t SoftmaxAttention::EngineBytes(bool backward, const SoftmaxAttentionShape& shape,
                                            bool deterministic, int64_t* bytes) {
  const HeadsStrides queries = Contiguous(shape.heads, shape.queries, shape.head_size);
  const HeadsStrides keys = Contiguous(shape.kv_heads, shape.keys, shape.head_size);
  *bytes = 0;
  for (const bool documents : {false, true}) {
    CudnnPlan plan(GraphOf(&library_, backward,
                           {.shape = shape,
                            .q = queries,
                            .k = keys,
                            .v = keys,
                            .output = queries,
                            .output_gradient = queries,
                            .q_gradient = queries,
                            .k_gradient = keys,
                            .v_gradient = keys,
                            .documents = documents,
                            .deterministic = deterministic}),
                   device_);
    *bytes = std::max(*bytes, Aligned(plan.ProposedWorkspaceBytes()));
    LASP_RETURN_IF_CUDNN_ERROR(plan.status());
  }
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t SoftmaxAttention::WorkspaceBytes(const SoftmaxAttentionShape& shape, int64_t* bytes) {
  int64_t engine = 0;
  LASP_RETURN_IF_CUDNN_ERROR(EngineBytes(/*backward=*/false, shape, false, &engine));
  *bytes = engine;
  LASP_RETURN_IF_CUDNN_ERROR(EngineBytes(/*backward=*/true, shape, false, &engine));
  *bytes = std::max(*bytes, GradientsMemory(shape, false).bytes() + engine);
  if (HoldsScores(shape)) {
    LASP_RETURN_IF_CUDNN_ERROR(EngineBytes(/*backward=*/true, shape, true, &engine));
    *bytes = std::max(*bytes, GradientsMemory(shape, true).bytes() + engine);
  }
  return CUDNN_STATUS_SUCCESS;
}

CudnnPlan* SoftmaxAttention::Known(bool backward, const SoftmaxGraphShape& of) const {
  for (const Planned& known : planned_) {
    if (known.backward == backward && known.of == of) {
      return known.plan.get();
    }
  }
  return nullptr;
}

cudnnStatus_t SoftmaxAttention::Find(bool backward, const SoftmaxGraphShape& of,
                                     int64_t workspace_bytes, CudnnPlan** plan) {
  if (*plan = Known(backward, of); *plan != nullptr) {
    return CUDNN_STATUS_SUCCESS;
  }
  if (MaskOf(of.shape) == SoftmaxMask::kOther) {
    return CUDNN_STATUS_NOT_SUPPORTED;
  }
  Planned made{.backward = backward,
               .of = of,
               .plan = std::make_unique<CudnnPlan>(GraphOf(&library_, backward, of), device_)};
  LASP_RETURN_IF_CUDNN_ERROR(made.plan->Compile(workspace_bytes));
  *plan = made.plan.get();
  planned_.push_back(std::move(made));
  return CUDNN_STATUS_SUCCESS;
}

// With fewer keys than the workspace is for it may have no room for what would be deterministic.
cudnnStatus_t SoftmaxAttention::FindGradients(const SoftmaxGradientsArgs& args,
                                              int64_t workspace_bytes, bool* deterministic,
                                              CudnnPlan** plan) {
  const auto find = [&](bool in_order) {
    *deterministic = in_order;
    return Find(/*backward=*/true, GraphShapeOf(args, in_order),
                workspace_bytes - GradientsMemory(args.shape, in_order).bytes(), plan);
  };
  const bool may_hold =
      HoldsScores(args.shape) && Known(/*backward=*/true, GraphShapeOf(args, false)) == nullptr;
  return may_hold && find(true) == CUDNN_STATUS_SUCCESS ? CUDNN_STATUS_SUCCESS : find(false);
}

cudnnStatus_t SoftmaxAttention::PlanOutput(const SoftmaxOutputArgs& args,
                                           const SoftmaxWorkspace& workspace) {
  CudnnPlan* plan = nullptr;
  return Find(/*backward=*/false, GraphShapeOf(args), workspace.bytes, &plan);
}

cudnnStatus_t SoftmaxAttention::PlanGradients(const SoftmaxGradientsArgs& args,
                                              const SoftmaxWorkspace& workspace) {
  CudnnPlan* plan = nullptr;
  bool deterministic = false;
  return FindGradients(args, workspace.bytes, &deterministic, &plan);
}

cudnnStatus_t SoftmaxAttention::Output(const SoftmaxOutputArgs& args,
                                       const SoftmaxWorkspace& workspace, cudaStream_t stream) {
  CudnnPlan* plan = nullptr;
  LASP_RETURN_IF_CUDNN_ERROR(Find(/*backward=*/false, GraphShapeOf(args), workspace.bytes, &plan));
  const Scalars scalars(args.shape);
  std::vector<CudnnBinding> bindings = {{kQuery, args.q.data},
                                        {kKey, args.k.data},
                                        {kValue, args.v.data},
                                        {kOutput, args.output.data},
                                        {kLogSums, args.log_sums}};
  scalars.AddTo(args.shape, args.document_starts, &bindings);
  LASP_RETURN_IF_CUDNN_ERROR(library_.set_stream(handle_, stream));
  return plan->Run(handle_, bindings, workspace.data);
}

cudnnStatus_t SoftmaxAttention::Gradients(const SoftmaxGradientsArgs& args,
                                          const SoftmaxWorkspace& workspace, cudaStream_t stream) {
  CudnnPlan* plan = nullptr;
  bool deterministic = false;
  LASP_RETURN_IF_CUDNN_ERROR(FindGradients(args, workspace.bytes, &deterministic, &plan));
  const GradientsMemory memory(args.shape, deterministic);
  char* const means = static_cast<char*>(workspace.data);
  const Scalars scalars(args.shape);
  std::vector<CudnnBinding> bindings = {{kQuery, args.q.data},
                                        {kKey, args.k.data},
                                        {kValue, args.v.data},
                                        {kOutput, args.output.data},
                                        {kLogSums, args.log_sums},
                                        {kOutputGradient, args.output_gradient.data},
                                        {kQueryGradient, args.q_gradient.data},
                                        {kKeyGradient, args.k_gradient.data},
                                        {kValueGradient, args.v_gradient.data},
                                        {kRowMeans, means},
                                        {kOne, &scalars.one}};
  if (!deterministic) {
    bindings.push_back({kQueryGradientSums, means + memory.means_bytes});
  }
  scalars.AddTo(args.shape, args.document_starts, &bindings);
  LASP_RETURN_IF_CUDNN_ERROR(library_.set_stream(handle_, stream));
  return plan->Run(handle_, bindings, means + memory.bytes());
}

}  // namespace lasp::kernels::cuda
