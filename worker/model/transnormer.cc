#include "worker/model/transnormer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/decay_slopes.h"
#include "kernels/lrpe.h"
#include "proto/rpc/status_macros.h"

namespace lasp::worker {

TransNormer::TransNormer(const ModelConfig& config, const MicroBatchShape& shape,
                         const ActivationOptions& activations, const ParameterLayout* layout,
                         const ParameterTensors& parameters, Backend* backend,
                         SequenceParallel* attention, Arena& arena)
    : config_(config),
      shape_(shape),
      layout_(*layout),
      backend_(*backend),
      attention_(*attention),
      linear_mixer_(CreateTokenMixer(config, backend, attention)),
      softmax_mixer_(config.has_softmax()
                         ? CreateSoftmaxMixer(backend, attention->softmax(), config.rotary_base)
                         : nullptr),
      channel_mixer_(backend, attention->tensor_parallel()),
      parallel_(*parameters.parallel),
      learned_theta_(parameters.learned_theta),
      weights_(layout->Bind([&](int64_t unit) { return parallel_.weights(unit); })),
      gradients_(layout->Bind([&](int64_t unit) { return parallel_.gradients(unit); })),
      embedding_scale_(std::sqrt(static_cast<double>(config.hidden_size))),
      carried_(activations.carried),
      head_(shape.rows(), config.vocab_size, backend, arena) {
  const auto take_rows = [&](int64_t rows, int64_t columns) {
    return arena.Take(MemoryUse::kWorkspace, backend_.activation_type(), rows, columns);
  };
  const auto take = [&](int64_t columns) { return take_rows(shape_.rows(), columns); };
  const auto keep = [&](int64_t columns) {
    return arena.Take(MemoryUse::kActivations, backend_.activation_type(), shape_.rows(), columns);
  };
  const auto take_inverse_rms = [&] {
    return arena.Take(MemoryUse::kActivations, backend_.accumulation_type(), shape_.rows(), 1);
  };
  theta_ =
      arena.Take(MemoryUse::kWorkspace, DType::kFloat64, config.own_heads(), config.head_size());
  attention_shapes_ = LayerShapes(config, shape);
  for (AttentionShape& attention_shape : attention_shapes_) {
    attention_shape.slopes =
        arena.Take(MemoryUse::kWorkspace, DType::kFloat64, 1, config.own_heads());
    attention_shape.theta = theta_;
  }
  attention_.ExpectAtEnd(shape_.last);
  std::vector<BlockActivations> blocks = TakeBlocks(activations, arena);
  activations_ = activations.offloads
                     ? CreateOffloadPlan(std::move(blocks), activations.stash)
                     : CreateKeepPlan(std::move(blocks), activations.recomputation);
  if (config.has_linear()) {
    attention_.TakeScratch(attention_shapes_[config.first_linear()], arena);
  }
  if (config.has_softmax()) {
    attention_.softmax()->TakeScratch(attention_shapes_[config.first_softmax()], arena);
  }
  backend_.UseWorkspace(
      arena.Take(MemoryUse::kWorkspace, DType::kInt32, 1, (WorkspaceBytes() + 3) / 4));
  const int64_t hidden = config.hidden_size;
  final_input_ = keep(hidden);
  final_inverse_rms_ = take_inverse_rms();
  final_normed_ = keep(hidden);
  branch_output_ = take(hidden);
  residual_gradient_ = take(hidden);
  normed_gradient_ = take(hidden);
  const int64_t computed = ComputedRows(shape_.rows());
  product_scratch_ = take_rows(computed, config.own_glu_size());
  mixer_scratch_ = {.gated_gradient = take_rows(computed, config.own_width()),
                    .qkvu_gradient = take_rows(computed, config.widest_projection())};
  if (!final_input_.empty()) {
    FillConstants();
  }
}

std::vector<AttentionShape> TransNormer::LayerShapes(const ModelConfig& config,
                                                     const MicroBatchShape& shape) {
  std::vector<AttentionShape> shapes(static_cast<size_t>(config.layers));
  for (int64_t index = 0; index < config.layers; ++index) {
    AttentionShape& layer = shapes[static_cast<size_t>(index)];
    layer.batch = shape.sequences;
    layer.tokens = shape.tokens * config.tensor_ranks;
    layer.heads = config.own_heads();
    layer.head_size = config.head_size();
    if (config.softmax(index)) {
      layer.kv_heads = config.kv_heads;
    } else {
      layer.normalised = config.linear_transformer;
      layer.lrpe = index == 0 && !config.linear_transformer;
    }
  }
  return shapes;
}

AttentionShape TransNormer::ShapeOf(int64_t layer, int64_t rows) const {
  AttentionShape shape = attention_shapes_[layer];
  shape.tokens = ComputedRows(rows) / shape_.sequences;
  shape.document_marks = documents_.Own();
  shape.first_position = first_position_;
  return shape;
}

int64_t TransNormer::WorkspaceBytes() const {
  struct Case {
    int64_t tokens;
    SequenceSlices slices;
  };

  int64_t bytes = 0;
  // The last as in a rehearsal, whose ranks all have what one has in training.
  for (const auto& [tokens, slices] : {Case{shape_.tokens, {}}, Case{shape_.tokens, shape_.last},
                                       Case{shape_.last.CutShort(), {}}}) {
    if (tokens > 0) {
      attention_.UseSlices(slices);
      const int64_t rows = shape_.sequences * tokens;
      WorkspaceShape most{.rows = ComputedRows(rows), .hidden_size = config_.hidden_size};
      if (config_.has_linear()) {
        most.attention = attention_.ComputedShape(ShapeOf(config_.first_linear(), rows));
      }
      bytes = std::max(bytes, backend_.WorkspaceBytes(most));
    }
  }
  attention_.UseSlices({});
  return bytes;
}

BlockActivations TransNormer::PartOf(BlockActivations block, int64_t layer, int64_t rows) const {
  for (Tensor* const tensor :
       {&block.mixer_input, &block.mixer_inverse_rms, &block.mixer_normed, &block.channel_input,
        &block.channel_inverse_rms, &block.channel_normed}) {
    *tensor = tensor->Rows(0, rows);
  }
  for (Tensor* const tensor :
       {&block.qkvu, &block.qk, &block.attention_output, &block.attention_inverse_rms, &block.gated,
        &block.denominators, &block.l1_l2}) {
    *tensor = tensor->Rows(0, ComputedRows(rows));
  }
  if (carried_ != nullptr) {
    carried_->PutInto(layer, &block.attention);
  }
  return block;
}

std::vector<BlockActivations> TransNormer::TakeBlocks(const ActivationOptions& options,
                                                      Arena& arena) {
  const bool linear = config_.has_linear();
  BlockActivations shared;
  if (options.recomputation == Recomputation::kBlock) {
    TakeMissing(linear, config_.widest_projection(), arena, &shared);
    if (linear) {
      shared.attention =
          attention_.TakeLocalMemory(attention_shapes_[config_.first_linear()], arena);
    }
    if (config_.has_softmax()) {
      shared.softmax =
          attention_.softmax()->TakeMemory(attention_shapes_[config_.first_softmax()], arena);
    }
  } else if (options.recomputation == Recomputation::kCheapest) {
    const int64_t rows = shape_.rows();
    const int64_t hidden = config_.hidden_size;
    shared.mixer_normed = TakeActivation(rows, hidden, arena);
    if (linear) {
      shared.qk = TakeActivation(ComputedRows(rows), 2 * config_.own_width(), arena);
    }
    if (linear && !config_.linear_transformer) {
      shared.gated = TakeActivation(ComputedRows(rows), config_.own_width(), arena);
    }
    shared.channel_normed = TakeActivation(rows, hidden, arena);
  }
  std::vector<BlockActivations> blocks(static_cast<size_t>(config_.layers), shared);
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    BlockActivations& block = blocks[static_cast<size_t>(layer)];
    if (options.offloads && layer >= 2) {
      block.mixer_input = blocks[static_cast<size_t>(layer - 2)].mixer_input;
    } else if (layer > 0) {
      // The one that is shared is the first block's.
      block.mixer_input = {};
    }
    const int64_t projection_size = config_.projection_size(layer);
    TakeMissing(!config_.softmax(layer), projection_size, arena, &block);
    // Of one that is shared.
    block.qkvu = block.qkvu.Columns(0, projection_size);
    TakeAttention(options, layer, arena, &block);
  }
  return blocks;
}

void TransNormer::TakeAttention(const ActivationOptions& options, int64_t layer, Arena& arena,
                                BlockActivations* block) {
  const AttentionShape& shape = attention_shapes_[layer];
  const bool shares = options.recomputation == Recomputation::kBlock;
  if (config_.softmax(layer)) {
    if (!shares) {
      block->softmax = attention_.softmax()->TakeMemory(shape, arena);
    }
  } else if (shares) {
    attention_.TakeReceivedMemory(shape, arena, &block->attention);
  } else if (options.streams) {
    block->attention = attention_.TakeLocalMemory(shape, arena);
  } else {
    block->attention = attention_.TakeMemory(shape, arena);
  }
}

void TransNormer::TakeMissing(bool linear, int64_t projection_size, Arena& arena,
                              BlockActivations* block) {
  const auto take = [&](int64_t rows, int64_t columns, Tensor* tensor) {
    // Not taken yet: while memory is only measured what has been taken is empty, too.
    if (tensor->rows == 0) {
      *tensor = TakeActivation(rows, columns, arena);
    }
  };
  const auto take_exact = [&](int64_t rows, int64_t columns, Tensor* tensor) {
    if (tensor->rows == 0) {
      *tensor = arena.Take(MemoryUse::kActivations, backend_.accumulation_type(), rows, columns);
    }
  };
  const int64_t rows = shape_.rows();
  const int64_t computed = ComputedRows(rows);
  const int64_t hidden = config_.hidden_size;
  const int64_t width = config_.own_width();
  take(rows, hidden, &block->mixer_input);
  take_exact(rows, 1, &block->mixer_inverse_rms);
  take(rows, hidden, &block->mixer_normed);
  take(computed, projection_size, &block->qkvu);
  if (linear) {
    take(computed, 2 * width, &block->qk);
  }
  take(computed, width, &block->attention_output);
  if (linear && config_.linear_transformer) {
    take_exact(computed, config_.own_heads(), &block->denominators);
  } else if (linear) {
    take_exact(computed, 1, &block->attention_inverse_rms);
    take(computed, width, &block->gated);
  }
  take(rows, hidden, &block->channel_input);
  take_exact(rows, 1, &block->channel_inverse_rms);
  take(rows, hidden, &block->channel_normed);
  take(computed, 2 * config_.own_glu_size(), &block->l1_l2);
}

Tensor TransNormer::TakeActivation(int64_t rows, int64_t columns, Arena& arena) const {
  return arena.Take(MemoryUse::kActivations, backend_.activation_type(), rows, columns);
}

void TransNormer::FillConstants() {
  const auto heads = static_cast<size_t>(config_.heads);
  const int64_t first_head = config_.own_heads() * config_.tensor_rank;
  std::vector<double> theta(heads * static_cast<size_t>(config_.head_size()));
  kernels::LrpeTheta(config_.heads, config_.head_size(), theta.data());
  backend_.CopyFromHost(theta.data() + first_head * config_.head_size(), theta_);
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    std::vector<double> slopes(heads);
    if (!config_.linear_transformer) {
      kernels::DecaySlopes(layer, config_.layers, config_.heads, slopes.data());
    }
    backend_.CopyFromHost(slopes.data() + first_head, attention_shapes_[layer].slopes);
  }
}

void TransNormer::NormInput(int64_t layer, Tensor stream, const BlockActivations& block) {
  // The first block's input has nothing to add to it.
  const bool adds = layer > 0;
  backend_.RmsNormForward(stream, adds ? branch_output_.Rows(0, stream.rows) : Tensor{},
                          adds ? block.mixer_input : Tensor{}, block.mixer_normed,
                          block.mixer_inverse_rms);
}

absl::Status TransNormer::UseBlock(int64_t layer) {
  const bool last = layer + 1 == config_.layers;
  return parallel_.UseWeights(ParameterLayout::BlockUnit(layer),
                              last ? layout_.HeadUnit() : ParameterLayout::BlockUnit(layer + 1));
}

absl::StatusOr<Tensor> TransNormer::ForwardBlock(int64_t layer, int64_t rows, States states,
                                                 Tensor stream) {
  LASP_ASSIGN_OR_RETURN(const BlockActivations taken, activations_->ForForward(layer));
  BlockActivations block = PartOf(taken, layer, rows);
  const BlockWeights& weights = weights_.blocks[layer];
  const Tensor branch = branch_output_.Rows(0, rows);
  LASP_RETURN_IF_ERROR(UseBlock(layer));
  NormInput(layer, stream, block);
  LASP_RETURN_IF_ERROR(activations_->InputWritten(layer));
  if (states == States::kKept) {
    LASP_RETURN_IF_ERROR(MixerOf(layer).Recompute(ShapeOf(layer, rows), weights,
                                                  Recomputation::kBlock, block, branch));
  } else {
    LASP_RETURN_IF_ERROR(MixerOf(layer).Forward(ShapeOf(layer, rows), weights, block, branch));
  }
  backend_.RmsNormForward(block.mixer_input, branch, block.channel_input, block.channel_normed,
                          block.channel_inverse_rms);
  LASP_RETURN_IF_ERROR(
      channel_mixer_.Forward(weights, block, product_scratch_.Rows(0, ComputedRows(rows)), branch));
  return block.channel_input;
}

absl::StatusOr<Tensor> TransNormer::ForwardFirst(int64_t layers, const TokenBatch& batch,
                                                 States states) {
  const int64_t rows = batch.ids.rows;
  LASP_RETURN_IF_ERROR(
      parallel_.UseWeights(ParameterLayout::kEmbedding, ParameterLayout::BlockUnit(0)));
  LASP_ASSIGN_OR_RETURN(const BlockActivations first, activations_->ForForward(0));
  Tensor stream = first.mixer_input.Rows(0, rows);
  backend_.EmbeddingForward(embedding_scale_, batch.ids, weights_.embedding, stream);
  if (config_.linear_transformer) {
    backend_.linear_transformer()->AddPositions(batch.first_position, rows / shape_.sequences,
                                                stream);
  }
  for (int64_t layer = 0; layer < layers; ++layer) {
    LASP_ASSIGN_OR_RETURN(stream, ForwardBlock(layer, rows, states, stream));
  }
  return stream;
}

absl::Status TransNormer::ForwardBlocks(const TokenBatch& batch, States states) {
  const int64_t rows = batch.ids.rows;
  LASP_ASSIGN_OR_RETURN(const Tensor stream, ForwardFirst(config_.layers, batch, states));
  backend_.RmsNormForward(stream, branch_output_.Rows(0, rows), final_input_.Rows(0, rows),
                          final_normed_.Rows(0, rows), final_inverse_rms_.Rows(0, rows));
  return parallel_.UseWeights(layout_.HeadUnit(), kNoUnit);
}

absl::Status TransNormer::PassStates(States states) {
  LASP_RETURN_IF_ERROR(
      parallel_.UseWeights(ParameterLayout::kEmbedding, ParameterLayout::BlockUnit(0)));
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    const AttentionShape shape = ShapeOf(layer, 0);
    LASP_ASSIGN_OR_RETURN(const BlockActivations taken, activations_->ForForward(layer));
    const AttentionMemory memory = PartOf(taken, layer, 0).attention;
    LASP_RETURN_IF_ERROR(UseBlock(layer));
    if (states == States::kKept) {
      LASP_RETURN_IF_ERROR(attention_.Recompute(shape, {}, memory, Tensor{}));
    } else {
      LASP_RETURN_IF_ERROR(attention_.BeginForward(shape, {}, memory));
      LASP_RETURN_IF_ERROR(attention_.EndForward(shape, {}, memory, Tensor{}));
    }
  }
  return parallel_.UseWeights(layout_.HeadUnit(), kNoUnit);
}

absl::Status TransNormer::PassGradients(bool last) {
  // Nothing to add, or zeros.
  const auto begin = [&](int64_t unit) -> absl::Status {
    LASP_RETURN_IF_ERROR(parallel_.UseGradients(unit));
    if (!adds_) {
      backend_.Fill(0, parallel_.gradients(unit));
    }
    return absl::OkStatus();
  };
  if (!config_.tie_embeddings) {
    LASP_RETURN_IF_ERROR(begin(layout_.HeadUnit()));
    parallel_.GradientsDone(layout_.HeadUnit(), last);
  }
  for (int64_t layer = config_.layers - 1; layer >= 0; --layer) {
    const int64_t unit = ParameterLayout::BlockUnit(layer);
    LASP_RETURN_IF_ERROR(
        parallel_.UseWeights(unit, layer > 0 ? ParameterLayout::BlockUnit(layer - 1) : kNoUnit));
    LASP_ASSIGN_OR_RETURN(const BlockActivations kept, activations_->ForBackward(layer));
    const AttentionMemory memory = PartOf(kept, layer, 0).attention;
    LASP_RETURN_IF_ERROR(begin(unit));
    // Only of the frequencies: a rank may have heads of other ranks' tokens.
    LASP_RETURN_IF_ERROR(
        attention_.Backward(ShapeOf(layer, 0), {}, memory, Tensor{},
                            {.q = {}, .k = {}, .v = {}, .theta = gradients_.blocks[layer].theta}));
    parallel_.GradientsDone(unit, last);
  }
  LASP_RETURN_IF_ERROR(begin(ParameterLayout::kEmbedding));
  parallel_.GradientsDone(ParameterLayout::kEmbedding, last);
  return absl::OkStatus();
}

void TransNormer::BeginForward(const TokenBatch& batch) {
  attention_.UseSlices(batch.slices);
  attention_.UseDocuments(batch.documents);
  documents_ = batch.documents;
  first_position_ = batch.first_position;
  if (config_.learned_theta) {
    backend_.Convert(learned_theta_, theta_);
  }
}

absl::Status TransNormer::ForwardStates(const TokenBatch& batch) {
  BeginForward(batch);
  const int64_t rows = batch.ids.rows;
  const int64_t last = config_.layers - 1;
  LASP_ASSIGN_OR_RETURN(const Tensor stream, ForwardFirst(last, batch, States::kExchanged));
  LASP_ASSIGN_OR_RETURN(const BlockActivations taken, activations_->ForForward(last));
  BlockActivations block = PartOf(taken, last, rows);
  LASP_RETURN_IF_ERROR(
      parallel_.UseWeights(ParameterLayout::BlockUnit(last), ParameterLayout::kEmbedding));
  NormInput(last, stream, block);
  LASP_RETURN_IF_ERROR(MixerOf(last).States(ShapeOf(last, rows), weights_.blocks[last], block));
  return attention_.Finish();
}

absl::Status TransNormer::ForwardForTraining(const TokenBatch& batch, States states,
                                             double gradient_scale, Tensor loss_sum, bool adds) {
  BeginForward(batch);
  adds_ = adds && parallel_.keeps_sums();
  const int64_t rows = batch.ids.rows;
  if (rows == 0) {
    return PassStates(states);
  }
  LASP_RETURN_IF_ERROR(ForwardBlocks(batch, states));
  LASP_RETURN_IF_ERROR(parallel_.UseGradients(layout_.HeadUnit()));
  head_.Run(final_normed_.Rows(0, rows), weights_.head, batch.labels, gradient_scale, loss_sum,
            normed_gradient_.Rows(0, rows), gradients_.head, adds_);
  return absl::OkStatus();
}

absl::Status TransNormer::ForwardForEvaluation(const TokenBatch& batch, Tensor loss_sum) {
  BeginForward(batch);
  const int64_t rows = batch.ids.rows;
  if (rows == 0) {
    LASP_RETURN_IF_ERROR(PassStates(States::kExchanged));
    return attention_.Finish();
  }
  LASP_RETURN_IF_ERROR(ForwardBlocks(batch, States::kExchanged));
  head_.Run(final_normed_.Rows(0, rows), weights_.head, batch.labels, 0, loss_sum, Tensor{},
            Tensor{}, false);
  return attention_.Finish();
}

absl::Status TransNormer::Recompute(int64_t layer, BlockActivations& block) {
  const Recomputation missing = activations_->Missing(layer);
  if (missing == Recomputation::kNothing) {
    return absl::OkStatus();
  }
  const BlockWeights& weights = weights_.blocks[layer];
  const int64_t rows = block.mixer_input.rows;
  const Tensor branch = branch_output_.Rows(0, rows);
  backend_.RmsNormForward(block.mixer_input, Tensor{}, Tensor{}, block.mixer_normed,
                          block.mixer_inverse_rms);
  LASP_RETURN_IF_ERROR(
      MixerOf(layer).Recompute(ShapeOf(layer, rows), weights, missing, block, branch));
  if (missing == Recomputation::kBlock) {
    backend_.RmsNormForward(block.mixer_input, branch, block.channel_input, block.channel_normed,
                            block.channel_inverse_rms);
    LASP_RETURN_IF_ERROR(channel_mixer_.Recompute(weights, block));
  } else {
    backend_.RmsNormForward(block.channel_input, Tensor{}, Tensor{}, block.channel_normed,
                            block.channel_inverse_rms);
  }
  return absl::OkStatus();
}

absl::Status TransNormer::BackwardBlock(int64_t layer, int64_t rows, bool last) {
  const int64_t unit = ParameterLayout::BlockUnit(layer);
  LASP_RETURN_IF_ERROR(
      parallel_.UseWeights(unit, layer > 0 ? ParameterLayout::BlockUnit(layer - 1) : kNoUnit));
  LASP_ASSIGN_OR_RETURN(const BlockActivations kept, activations_->ForBackward(layer));
  BlockActivations block = PartOf(kept, layer, rows);
  LASP_RETURN_IF_ERROR(Recompute(layer, block));
  const BlockWeights& weights = weights_.blocks[layer];
  BlockWeights& gradients = gradients_.blocks[layer];
  LASP_RETURN_IF_ERROR(parallel_.UseGradients(unit));
  if (!adds_ && !gradients.theta.empty()) {
    backend_.Fill(0, gradients.theta);  // it is always added to
  }
  const Tensor residual_gradient = residual_gradient_.Rows(0, rows);
  const Tensor normed_gradient = normed_gradient_.Rows(0, rows);
  const int64_t computed = ComputedRows(rows);
  LASP_RETURN_IF_ERROR(channel_mixer_.Backward(weights, block, residual_gradient,
                                               product_scratch_.Rows(0, computed), gradients, adds_,
                                               normed_gradient));
  backend_.RmsNormBackward(block.channel_input, block.channel_inverse_rms, normed_gradient,
                           residual_gradient, residual_gradient);
  LASP_RETURN_IF_ERROR(
      MixerOf(layer).Backward(ShapeOf(layer, rows), weights, block, residual_gradient,
                              {.gated_gradient = mixer_scratch_.gated_gradient.Rows(0, computed),
                               .qkvu_gradient = mixer_scratch_.qkvu_gradient.Rows(0, computed)
                                                    .Columns(0, config_.projection_size(layer))},
                              gradients, adds_, normed_gradient));
  backend_.RmsNormBackward(block.mixer_input, block.mixer_inverse_rms, normed_gradient,
                           residual_gradient, residual_gradient);
  parallel_.GradientsDone(unit, last);
  return absl::OkStatus();
}

absl::Status TransNormer::Backward(const TokenBatch& batch, bool last) {
  const int64_t rows = batch.ids.rows;
  if (rows == 0) {
    LASP_RETURN_IF_ERROR(PassGradients(last));
    return attention_.Finish();
  }
  if (!config_.tie_embeddings) {
    parallel_.GradientsDone(layout_.HeadUnit(), last);
  }
  backend_.RmsNormBackward(final_input_.Rows(0, rows), final_inverse_rms_.Rows(0, rows),
                           normed_gradient_.Rows(0, rows), Tensor{},
                           residual_gradient_.Rows(0, rows));
  for (int64_t layer = config_.layers - 1; layer >= 0; --layer) {
    LASP_RETURN_IF_ERROR(BackwardBlock(layer, rows, last));
  }
  // The embedding's is always added to, as theta's; a tied one has the head's.
  if (!config_.tie_embeddings) {
    LASP_RETURN_IF_ERROR(parallel_.UseGradients(ParameterLayout::kEmbedding));
    if (!adds_) {
      backend_.Fill(0, gradients_.embedding);
    }
  }
  backend_.EmbeddingBackward(embedding_scale_, batch.ids, residual_gradient_.Rows(0, rows),
                             gradients_.embedding);
  parallel_.GradientsDone(ParameterLayout::kEmbedding, last);
  return attention_.Finish();
}

}  // namespace lasp::worker
