#include "kernels/cuda/softmax_attention_graph.h"

namespace lasp::kernels::cuda {
namespace {

constexpr cudnnDataType_t kFloat = CUDNN_DATA_FLOAT;
constexpr cudnnDataType_t kBf16 = CUDNN_DATA_BFLOAT16;
constexpr cudnnDataType_t kInt = CUDNN_DATA_INT32;

// The tensors of one graph, and what both graphs begin with.
class Builder {
 public:
  Builder(CudnnGraph* graph, const SoftmaxGraphShape& of) : graph_(*graph), of_(of) {}

  const SoftmaxAttentionShape& shape() const { return of_.shape; }

  CudnnSizes Scores() const {
    return {shape().batch, shape().heads, shape().queries, shape().keys};
  }

  CudnnSizes Rows() const { return {shape().batch, shape().heads, shape().queries, 1}; }

  // [batch, heads, tokens, head_size], in memory as a HeadsView.
  CudnnObject Heads(SoftmaxTensor id, int64_t heads, int64_t tokens, const HeadsStrides& strides) {
    return graph_.Tensor(id, kBf16, {shape().batch, heads, tokens, shape().head_size},
                         {strides.batch, strides.head, strides.token, 1});
  }

  CudnnObject Queries(SoftmaxTensor id, const HeadsStrides& strides) {
    return Heads(id, shape().heads, shape().queries, strides);
  }

  CudnnObject Keys(SoftmaxTensor id, const HeadsStrides& strides) {
    return Heads(id, shape().kv_heads, shape().keys, strides);
  }

  // The same memory with rows and columns the other way round.
  CudnnObject KeysTransposed(SoftmaxTensor id, const HeadsStrides& strides) {
    return graph_.Tensor(id, kBf16,
                         {shape().batch, shape().kv_heads, shape().head_size, shape().keys},
                         {strides.batch, strides.head, 1, strides.token});
  }

  CudnnObject LogSums() {
    return graph_.Tensor(kLogSums, kFloat, Rows(), ContiguousStrides(Rows()));
  }

  CudnnObject Apply(cudnnPointwiseMode_t mode, CudnnObject x, CudnnObject b,
                    const CudnnSizes& sizes, cudnnDataType_t type = kFloat) {
    const CudnnObject y = graph_.Between(type, sizes);
    graph_.Add({.mode = mode, .x = x, .b = b, .y = y});
    return y;
  }

  CudnnObject Reduced(cudnnReduceTensorOp_t operation, CudnnObject x) {
    const CudnnObject y = graph_.Between(kFloat, Rows());
    graph_.AddReduction(operation, x, y);
    return y;
  }

  CudnnObject Product(CudnnObject a, CudnnObject b, const CudnnSizes& sizes,
                      cudnnDataType_t type = kFloat) {
    const CudnnObject c = graph_.Between(type, sizes);
    graph_.AddProduct(a, b, c);
    return c;
  }

  // Scores as rows of keys.
  CudnnObject ByKeys(CudnnObject scores) {
    const CudnnSizes sizes = {shape().batch, shape().heads, shape().keys, shape().queries};
    const CudnnSizes strides = ContiguousStrides(Scores());
    const CudnnObject y =
        graph_.Between(kBf16, sizes, {strides[0], strides[1], strides[3], strides[2]});
    graph_.AddTransposition(scores, y);
    return y;
  }

  // A product that is a gradient of keys or values, summed over the heads that share them.
  void AddKeyGradient(CudnnObject a, CudnnObject b, CudnnObject gradient) {
    if (shape().heads == shape().kv_heads) {
      graph_.AddProduct(a, b, gradient);
    } else {
      const CudnnObject of_heads =
          Product(a, b, {shape().batch, shape().heads, shape().keys, shape().head_size}, kBf16);
      graph_.AddReduction(CUDNN_REDUCE_TENSOR_ADD, of_heads, gradient);
    }
  }

  // Scores of what queries do not see are put far away.
  CudnnObject Seen(CudnnObject scores) {
    return of_.documents ? WithinDocuments(NotLater(scores)) : NotLater(scores);
  }

 private:
  // The number of a score's row (axis 2) or column (3).
  CudnnObject Index(CudnnObject scores, int64_t axis) {
    const CudnnObject y = graph_.Between(kInt, Scores());
    graph_.Add({.mode = CUDNN_POINTWISE_GEN_INDEX, .x = scores, .y = y, .axis = axis});
    return y;
  }

  // The scores where a >= b, elsewhere the number.
  CudnnObject Where(CudnnObject a, CudnnObject b, CudnnObject scores, SoftmaxTensor elsewhere) {
    const CudnnObject is_seen = graph_.Between(CUDNN_DATA_BOOLEAN, Scores());
    graph_.Add({.mode = CUDNN_POINTWISE_CMP_GE,
                .x = a,
                .b = b,
                .y = is_seen,
                .precision = CUDNN_DATA_BOOLEAN});
    const CudnnObject y = graph_.Between(kFloat, Scores());
    graph_.Add({.mode = CUDNN_POINTWISE_BINARY_SELECT,
                .x = scores,
                .b = graph_.Scalar(elsewhere, kFloat),
                .t = is_seen,
                .y = y});
    return y;
  }

  CudnnObject NotLater(CudnnObject scores) {
    if (MaskOf(shape()) == SoftmaxMask::kNone) {
      return scores;
    }
    const auto moved = [&](cudnnPointwiseMode_t mode, CudnnObject x, SoftmaxTensor by) {
      const CudnnObject y = graph_.Between(kInt, Scores());
      graph_.Add({.mode = mode, .x = x, .b = graph_.Scalar(by, kInt), .y = y, .precision = kInt});
      return y;
    };
    CudnnObject row = Index(scores, 2);
    const CudnnObject column = Index(scores, 3);
    if (shape().keys != shape().queries) {
      row = moved(CUDNN_POINTWISE_ADD, row, kKeyCount);
      row = moved(CUDNN_POINTWISE_SUB, row, kQueryCount);
    }
    return Where(row, column, scores, kUnseen);
  }

  CudnnObject WithinDocuments(CudnnObject scores) {
    const CudnnSizes rows = {shape().batch, 1, shape().queries, 1};
    const CudnnObject starts = graph_.Tensor(kDocumentStarts, kInt, rows, ContiguousStrides(rows));
    return Where(Index(scores, 3), starts, scores, kOutside);
  }

  CudnnGraph& graph_;
  const SoftmaxGraphShape& of_;
};

}  // namespace

SoftmaxMask MaskOf(const SoftmaxAttentionShape& shape) {
  if (shape.offset >= shape.keys - 1) {
    return SoftmaxMask::kNone;
  }
  return shape.offset == shape.keys - shape.queries ? SoftmaxMask::kCausal : SoftmaxMask::kOther;
}

std::unique_ptr<CudnnGraph> SoftmaxOutputGraph(const CudnnLibrary* library,
                                               const SoftmaxGraphShape& of) {
  auto graph = std::make_unique<CudnnGraph>(library);
  Builder b(graph.get(), of);
  const CudnnSizes scores = b.Scores();
  const CudnnSizes rows = b.Rows();
  const CudnnObject q = b.Queries(kQuery, of.q);
  const CudnnObject k = b.KeysTransposed(kKey, of.k);
  const CudnnObject v = b.Keys(kValue, of.v);
  const CudnnObject output = b.Queries(kOutput, of.output);
  const CudnnObject products = b.Product(q, k, scores);
  const CudnnObject scaled =
      b.Apply(CUDNN_POINTWISE_MUL, products, graph->Scalar(kScale, kFloat), scores);
  const CudnnObject seen = b.Seen(scaled);
  const CudnnObject highest = b.Reduced(CUDNN_REDUCE_TENSOR_MAX, seen);
  const CudnnObject below = b.Apply(CUDNN_POINTWISE_SUB, seen, highest, scores);
  const CudnnObject weights = b.Apply(CUDNN_POINTWISE_EXP, below, nullptr, scores);
  const CudnnObject sum = b.Reduced(CUDNN_REDUCE_TENSOR_ADD, weights);
  const CudnnObject log_sum = b.Apply(CUDNN_POINTWISE_LOG, sum, nullptr, rows);
  graph->Add({.mode = CUDNN_POINTWISE_ADD, .x = highest, .b = log_sum, .y = b.LogSums()});
  const CudnnObject shares = b.Apply(CUDNN_POINTWISE_DIV, weights, sum, scores, kBf16);
  graph->AddProduct(shares, v, output);
  return graph;
}

std::unique_ptr<CudnnGraph> SoftmaxGradientsGraph(const CudnnLibrary* library,
                                                  const SoftmaxGraphShape& of) {
  auto graph = std::make_unique<CudnnGraph>(library);
  Builder b(graph.get(), of);
  const SoftmaxAttentionShape& shape = of.shape;
  const CudnnSizes scores = b.Scores();
  const CudnnSizes rows = b.Rows();
  const CudnnSizes heads = {shape.batch, shape.heads, shape.queries, shape.head_size};
  const CudnnObject q = b.Queries(kQuery, of.q);
  const CudnnObject k = b.KeysTransposed(kKey, of.k);
  const CudnnObject v = b.KeysTransposed(kValue, of.v);
  const CudnnObject output = b.Queries(kOutput, of.output);
  const CudnnObject d_output = b.Queries(kOutputGradient, of.output_gradient);
  const CudnnObject log_sums = b.LogSums();
  const CudnnObject scale = graph->Scalar(kScale, kFloat);

  // D, in memory: the sums of a row's do . o.
  const CudnnObject mean =
      b.Reduced(CUDNN_REDUCE_TENSOR_ADD, b.Apply(CUDNN_POINTWISE_MUL, d_output, output, heads));
  const CudnnObject means = graph->Tensor(kRowMeans, kFloat, rows, ContiguousStrides(rows));
  graph->Add(
      {.mode = CUDNN_POINTWISE_MUL, .x = mean, .b = graph->Scalar(kOne, kFloat), .y = means});

  // p, and with it the gradient of v.
  const CudnnObject scaled = b.Apply(CUDNN_POINTWISE_MUL, b.Product(q, k, scores), scale, scores);
  const CudnnObject below = b.Apply(CUDNN_POINTWISE_SUB, scaled, log_sums, scores);
  const CudnnObject weights = b.Apply(CUDNN_POINTWISE_EXP, b.Seen(below), nullptr, scores);
  b.AddKeyGradient(b.ByKeys(weights), d_output, b.Keys(kValueGradient, of.v_gradient));

  // ds, and with it those of k and q.
  const CudnnObject apart =
      b.Apply(CUDNN_POINTWISE_SUB, b.Product(d_output, v, scores), means, scores);
  const CudnnObject d_scores =
      b.Apply(CUDNN_POINTWISE_MUL, b.Apply(CUDNN_POINTWISE_MUL, apart, weights, scores), scale,
              scores, kBf16);
  b.AddKeyGradient(b.ByKeys(d_scores), q, b.Keys(kKeyGradient, of.k_gradient));
  const CudnnObject rows_of_k =
      graph->Between(kBf16, {shape.batch, shape.kv_heads, shape.keys, shape.head_size},
                     {of.k.batch, of.k.head, of.k.token, 1});
  graph->AddTransposition(k, rows_of_k);
  const CudnnObject d_q = b.Queries(kQueryGradient, of.q_gradient);
  if (of.deterministic) {
    graph->AddProduct(d_scores, rows_of_k, d_q);
  } else {
    const CudnnObject sums =
        graph->Tensor(kQueryGradientSums, kFloat, heads, ContiguousStrides(heads));
    graph->AddProduct(d_scores, rows_of_k, sums);
    graph->Add({.mode = CUDNN_POINTWISE_IDENTITY, .x = sums, .y = d_q});
  }
  return graph;
}

}  // namespace lasp::kernels::cuda
