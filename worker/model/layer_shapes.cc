#include "worker/model/layer_shapes.h"

#include <algorithm>

#include "kernels/decay_slopes.h"
#include "kernels/lrpe.h"

namespace lasp::worker {

LayerShapes::LayerShapes(const ModelConfig& config, const MicroBatchShape& shape, Backend* backend,
                         Arena& arena)
    : config_(config), shape_(shape), widest_(Geometry(config, shape)) {
  theta_ =
      arena.Take(MemoryUse::kWorkspace, DType::kFloat64, config.own_heads(), config.head_size());
  for (AttentionShape& layer : widest_) {
    layer.slopes = arena.Take(MemoryUse::kWorkspace, DType::kFloat64, 1, config.own_heads());
    layer.theta = theta_;
  }
  if (!theta_.empty()) {
    FillConstants(*backend);
  }
}

std::vector<AttentionShape> LayerShapes::Geometry(const ModelConfig& config,
                                                  const MicroBatchShape& shape) {
  std::vector<AttentionShape> shapes(static_cast<size_t>(config.layers));
  for (int64_t index = 0; index < config.layers; ++index) {
    AttentionShape& layer = shapes[static_cast<size_t>(index)];
    layer.batch = shape.sequences;
    layer.tokens = shape.tokens * config.tensor_ranks;
    layer.heads = config.own_heads();
    layer.head_size = config.head_size();
    if (config.softmax(index)) {
      layer.kv_heads = config.own_kv_heads();
    } else {
      layer.normalised = config.linear_transformer;
      layer.lrpe = index == 0 && !config.linear_transformer;
    }
  }
  return shapes;
}

void LayerShapes::FillConstants(Backend& backend) {
  const auto heads = static_cast<size_t>(config_.heads);
  const int64_t first_head = config_.own_heads() * config_.tensor_rank;
  std::vector<double> theta(heads * static_cast<size_t>(config_.head_size()));
  kernels::LrpeTheta(config_.heads, config_.head_size(), theta.data());
  backend.CopyFromHost(theta.data() + first_head * config_.head_size(), theta_);
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    std::vector<double> slopes(heads);
    if (!config_.linear_transformer) {
      kernels::DecaySlopes(layer, config_.layers, config_.heads, slopes.data());
    }
    backend.CopyFromHost(slopes.data() + first_head, Widest(layer).slopes);
  }
}

void LayerShapes::UseBatch(const TokenBatch& batch) {
  slices_ = batch.slices;
  documents_ = batch.documents;
  first_position_ = batch.first_position;
}

AttentionShape LayerShapes::Of(int64_t layer, int64_t rows) const {
  AttentionShape shape = Widest(layer);
  shape.tokens = ComputedRows(rows) / shape_.sequences;
  // With tensor parallelism this rank has all tokens, and softmax attention sees those of others.
  shape.document_marks =
      config_.softmax(layer) || config_.tensor_ranks > 1 ? documents_.Whole() : documents_.Own();
  shape.first_position = first_position_ - FirstToken(rows);
  return shape;
}

int64_t LayerShapes::WorkspaceBytes(const Backend& backend, SequenceParallel& attention) const {
  struct Case {
    int64_t tokens;
    SequenceSlices slices;
  };

  int64_t bytes = 0;
  // The last as in a rehearsal, whose ranks all have what one has in training.
  for (const auto& [tokens, slices] : {Case{shape_.tokens, {}}, Case{shape_.tokens, shape_.last},
                                       Case{shape_.last.CutShort(), {}}}) {
    if (tokens > 0) {
      attention.UseSlices(slices);
      LayerShapes layers = *this;
      layers.slices_ = slices;
      const int64_t rows = shape_.sequences * tokens;
      WorkspaceShape most{.rows = layers.ComputedRows(rows), .hidden_size = config_.hidden_size};
      if (config_.has_linear()) {
        most.attention = attention.ComputedShape(layers.Of(config_.first_linear(), rows));
      }
      bytes = std::max(bytes, backend.WorkspaceBytes(most));
    }
  }
  attention.UseSlices({});
  return bytes;
}

}  // namespace lasp::worker
