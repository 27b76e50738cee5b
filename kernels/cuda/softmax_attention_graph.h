// Softmax attention and its gradients (kernels/softmax_attention.h) as graphs that cuDNN knows: the
// formulas, one operation each, which its engines recognise as a whole and compute tile by tile, so
// that what is written as [queries, keys] exists nowhere. Each detail of a graph's shape is part of
// what they recognise.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/cuda/cudnn_graph.h"
#include "kernels/cuda/cudnn_library.h"
#include "kernels/softmax_attention.h"

namespace lasp::kernels::cuda {

// Of a HeadsView.
struct HeadsStrides {
  int64_t batch = 0;
  int64_t token = 0;
  int64_t head = 0;

  bool operator==(const HeadsStrides&) const = default;
};

// All that a graph depends on. Those of gradients are of a gradients' graph alone.
struct SoftmaxGraphShape {
  SoftmaxAttentionShape shape;
  HeadsStrides q;
  HeadsStrides k;
  HeadsStrides v;
  HeadsStrides output;
  HeadsStrides output_gradient;
  HeadsStrides q_gradient;
  HeadsStrides k_gradient;
  HeadsStrides v_gradient;
  bool documents = false;  // a query sees no key before its document's start
  // The same bits in every run: the gradient of q is a product of its own, for which the scores'
  // gradients lie in the workspace. Else its parts are added in fp32 in the order they come.
  bool deterministic = false;

  bool operator==(const SoftmaxGraphShape&) const = default;
};

// What a run names: bf16 but for what says otherwise.
enum SoftmaxTensor : int64_t {
  kQuery = 1,
  kKey,
  kValue,
  kOutput,
  kLogSums,  // fp32 [batch, heads, queries]
  kOutputGradient,
  kQueryGradient,
  kKeyGradient,
  kValueGradient,
  kQueryGradientSums,  // fp32 [batch, heads, queries, head_size], of one that is not deterministic
  kRowMeans,           // D, fp32 [batch, heads, queries]
  kDocumentStarts,     // int32 [batch, queries]: the first key that a query sees, of one with
                       // documents
  // In host memory: fp32 but for the last two, int32.
  kScale,
  kUnseen,  // -infinity
  kOutside,
  kOne,
  kQueryCount,
  kKeyCount,
};

// How keys are hidden from queries, by their positions.
enum class SoftmaxMask : uint8_t {
  kNone,    // from the last key on all queries see all
  kCausal,  // the last query is at the last key
  kOther,   // there is no graph for it
};

SoftmaxMask MaskOf(const SoftmaxAttentionShape& shape);

std::unique_ptr<CudnnGraph> SoftmaxOutputGraph(const CudnnLibrary* library,
                                               const SoftmaxGraphShape& of);
std::unique_ptr<CudnnGraph> SoftmaxGradientsGraph(const CudnnLibrary* library,
                                                  const SoftmaxGraphShape& of);

}  // namespace lasp::kernels::cuda
