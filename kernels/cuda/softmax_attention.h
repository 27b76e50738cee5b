// kernels/softmax_attention.h on the GPU, through cuDNN: bf16, with scores, log-sum-exps and sums
// in fp32. Of offsets only those whose queries end at the last key, or see all keys; head sizes are
// multiples of 8 up to 128. Bound by its products: 4 batch * heads * head_size operations for each
// query and key that it sees, forward, and 10 backward; what documents hide is computed all the
// same.
//
// A backward adds parts of q's gradient in the order they come, so that two runs differ in the last
// bits. Where the gradients of all scores are small enough to be held at once it does not.
#pragma once

#include <cuda_runtime_api.h>
#include <cudnn_graph.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/bfloat16.h"
#include "kernels/cuda/cudnn_library.h"
#include "kernels/cuda/cudnn_plan.h"
#include "kernels/cuda/softmax_attention_graph.h"
#include "kernels/softmax_attention.h"

namespace lasp::kernels::cuda {

struct SoftmaxOutputArgs {
  SoftmaxAttentionShape shape;
  HeadsView<const Bf16> q;
  HeadsView<const Bf16> k;
  HeadsView<const Bf16> v;
  HeadsView<Bf16> output;     // o
  float* log_sums = nullptr;  // L: [batch, heads, queries]
  // [batch, queries], of kernels/cuda/document_starts.h; null: documents are not apart. A query
  // that sees none of the keys has an L so low that merging leaves nothing of its o.
  const int32_t* document_starts = nullptr;
};

struct SoftmaxGradientsArgs {
  SoftmaxAttentionShape shape;
  HeadsView<const Bf16> q;
  HeadsView<const Bf16> k;
  HeadsView<const Bf16> v;
  HeadsView<const Bf16> output;     // o, over all slices of keys
  const float* log_sums = nullptr;  // L likewise
  HeadsView<const Bf16> output_gradient;
  HeadsView<Bf16> q_gradient;  // written, as the others are
  HeadsView<Bf16> k_gradient;
  HeadsView<Bf16> v_gradient;
  const int32_t* document_starts = nullptr;
};

// What of a device's memory the operations may use, aligned to 256 bytes.
struct SoftmaxWorkspace {
  void* data = nullptr;
  int64_t bytes = 0;
};

// On one device. A plan is made at the first call with a shape and strides, which takes seconds,
// and stays. Rows start at multiples of 16 bytes. Results are cuDNN's: NOT_SUPPORTED where no
// engine computes a shape in the workspace given. Not thread-safe.
class SoftmaxAttention {
 public:
  // For the GPU `device` of those that the process sees, which is current; or, where `description`
  // is not empty, for the one of cuDNN's JSON: then plans are made, but nothing runs. `library`
  // must outlive the object.
  static cudnnStatus_t Create(const CudnnLibrary* library, int device,
                              const std::string& description,
                              std::unique_ptr<SoftmaxAttention>* made);
  ~SoftmaxAttention();
  SoftmaxAttention(const SoftmaxAttention&) = delete;
  SoftmaxAttention& operator=(const SoftmaxAttention&) = delete;

  // With so much, a multiple of 256, both operations run on this shape, and with fewer keys; with
  // documents, too.
  cudnnStatus_t WorkspaceBytes(const SoftmaxAttentionShape& shape, int64_t* bytes);

  // Make a plan of the operation without running it; a workspace's data may be null.
  cudnnStatus_t PlanOutput(const SoftmaxOutputArgs& args, const SoftmaxWorkspace& workspace);
  cudnnStatus_t PlanGradients(const SoftmaxGradientsArgs& args, const SoftmaxWorkspace& workspace);

  cudnnStatus_t Output(const SoftmaxOutputArgs& args, const SoftmaxWorkspace& workspace,
                       cudaStream_t stream);
  cudnnStatus_t Gradients(const SoftmaxGradientsArgs& args, const SoftmaxWorkspace& workspace,
                          cudaStream_t stream);

 private:
  // Of an operation on a shape, by whether it is the backward's.
  struct Planned {
    bool backward = false;
    SoftmaxGraphShape of;
    std::unique_ptr<CudnnPlan> plan;
  };

  SoftmaxAttention(const CudnnLibrary* library, int device, const std::string& description)
      : library_(*library), device_(library, device, description) {}

  // Null where there is none yet.
  CudnnPlan* Known(bool backward, const SoftmaxGraphShape& of) const;
  // Compiled for at most so many bytes beside what the graph itself has in the workspace.
  cudnnStatus_t Find(bool backward, const SoftmaxGraphShape& of, int64_t workspace_bytes,
                     CudnnPlan** plan);
  cudnnStatus_t FindGradients(const SoftmaxGradientsArgs& args, int64_t workspace_bytes,
                              bool* deterministic, CudnnPlan** plan);
  // What cuDNN's engine wants, of a graph of contiguous tensors, with documents or without.
  cudnnStatus_t EngineBytes(bool backward, const SoftmaxAttentionShape& shape, bool deterministic,
                            int64_t* bytes);

  const CudnnLibrary& library_;
  CudnnDevice device_;
  cudnnHandle_t handle_ = nullptr;
  std::vector<Planned> planned_;  // a few
};

}  // namespace lasp::kernels::cuda
