#include "worker/model/transnormer.h"

#include <cmath>

#include "kernels/decay_slopes.h"
#include "kernels/lrpe.h"
#include "proto/rpc/status_macros.h"
#include "worker/model/channel_mixer.h"

namespace lasp::worker {

TransNormer::TransNormer(const ModelConfig& config, const MicroBatchShape& shape,
                         const ParameterLayout* layout, const ParameterTensors& parameters,
                         Backend* backend, SequenceParallel* attention, Arena& arena)
    : config_(config),
      shape_(shape),
      layout_(*layout),
      backend_(*backend),
      attention_(*attention),
      learned_theta_(layout->Bind(parameters.masters).blocks[0].theta),
      weights_(layout->Bind(parameters.weights)),
      gradients_(layout->Bind(parameters.gradients)),
      embedding_scale_(std::sqrt(static_cast<double>(config.hidden_size))),
      head_(shape.rows(), config.vocab_size, backend, arena) {
  const auto take = [&](int64_t columns) {
    return arena.Take(MemoryUse::kWorkspace, backend_.activation_type(), shape_.rows(), columns);
  };
  const auto keep = [&](int64_t columns) {
    return arena.Take(MemoryUse::kActivations, backend_.activation_type(), shape_.rows(), columns);
  };
  const auto take_inverse_rms = [&] {
    return arena.Take(MemoryUse::kActivations, backend_.accumulation_type(), shape_.rows(), 1);
  };
  theta_ = arena.Take(MemoryUse::kWorkspace, DType::kFloat64, config.heads, config.head_size());
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    attention_shapes_.push_back(
        {.batch = shape.sequences,
         .tokens = shape.tokens,
         .heads = config.heads,
         .head_size = config.head_size(),
         .lrpe = layer == 0,
         .slopes = arena.Take(MemoryUse::kWorkspace, DType::kFloat64, 1, config.heads),
         .theta = theta_});
  }
  activations_ =
      CreateKeepPlan(config.layers, [&](int64_t layer) { return TakeBlock(layer, arena); });
  attention_.TakeScratch(attention_shapes_[0], arena);
  const int64_t workspace_bytes = backend_.WorkspaceBytes({.rows = shape_.rows(),
                                                           .hidden_size = config.hidden_size,
                                                           .attention = attention_shapes_[0]});
  backend_.UseWorkspace(
      arena.Take(MemoryUse::kWorkspace, DType::kInt32, 1, (workspace_bytes + 3) / 4));
  const int64_t hidden = config.hidden_size;
  final_input_ = keep(hidden);
  final_inverse_rms_ = take_inverse_rms();
  final_normed_ = keep(hidden);
  branch_output_ = take(hidden);
  residual_gradient_ = take(hidden);
  normed_gradient_ = take(hidden);
  product_scratch_ = take(config.glu_size);
  mixer_scratch_ = {.gated_gradient = take(hidden), .qkvu_gradient = take(4 * hidden)};
  if (!final_input_.empty()) {
    FillConstants();
  }
}

BlockActivations TransNormer::TakeBlock(int64_t layer, Arena& arena) {
  const auto take = [&](int64_t columns) {
    return arena.Take(MemoryUse::kActivations, backend_.activation_type(), shape_.rows(), columns);
  };
  const auto take_inverse_rms = [&] {
    return arena.Take(MemoryUse::kActivations, backend_.accumulation_type(), shape_.rows(), 1);
  };
  const int64_t hidden = config_.hidden_size;
  BlockActivations block;
  block.mixer_input = take(hidden);
  block.mixer_inverse_rms = take_inverse_rms();
  block.mixer_normed = take(hidden);
  block.qkvu = take(4 * hidden);
  block.qk = take(2 * hidden);
  block.attention = attention_.TakeMemory(attention_shapes_[layer], arena);
  block.attention_output = take(hidden);
  block.attention_inverse_rms = take_inverse_rms();
  block.gated = take(hidden);
  block.channel_input = take(hidden);
  block.channel_inverse_rms = take_inverse_rms();
  block.channel_normed = take(hidden);
  block.l1_l2 = take(2 * config_.glu_size);
  return block;
}

void TransNormer::FillConstants() {
  std::vector<double> theta(static_cast<size_t>(theta_.count()));
  kernels::LrpeTheta(config_.heads, config_.head_size(), theta.data());
  backend_.CopyFromHost(theta.data(), theta_);
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    std::vector<double> slopes(static_cast<size_t>(config_.heads));
    kernels::DecaySlopes(layer, config_.layers, config_.heads, slopes.data());
    backend_.CopyFromHost(slopes.data(), attention_shapes_[layer].slopes);
  }
}

absl::Status TransNormer::ForwardBlocks(const TokenBatch& batch) {
  if (config_.learned_theta) {
    backend_.Convert(learned_theta_, theta_);
  }
  Tensor stream = activations_->ForForward(0).mixer_input;
  backend_.EmbeddingForward(embedding_scale_, batch.ids, weights_.embedding, stream);
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    BlockActivations& block = activations_->ForForward(layer);
    const BlockWeights& weights = weights_.blocks[layer];
    // The first block's input has nothing to add to it.
    backend_.RmsNormForward(stream, layer == 0 ? Tensor{} : branch_output_,
                            layer == 0 ? Tensor{} : block.mixer_input, block.mixer_normed,
                            block.mixer_inverse_rms);
    LASP_RETURN_IF_ERROR(TokenMixerForward(backend_, attention_, attention_shapes_[layer], weights,
                                           block, branch_output_));
    backend_.RmsNormForward(block.mixer_input, branch_output_, block.channel_input,
                            block.channel_normed, block.channel_inverse_rms);
    ChannelMixerForward(backend_, weights, block, product_scratch_, branch_output_);
    stream = block.channel_input;
  }
  backend_.RmsNormForward(stream, branch_output_, final_input_, final_normed_, final_inverse_rms_);
  return absl::OkStatus();
}

absl::Status TransNormer::ForwardForTraining(const TokenBatch& batch, double gradient_scale,
                                             Tensor loss_sum, bool adds) {
  LASP_RETURN_IF_ERROR(ForwardBlocks(batch));
  adds_ = adds;
  if (!adds) {
    // What is always added to. A tied embedding is the head's weight, written below.
    if (!config_.tie_embeddings) {
      backend_.Fill(0, gradients_.embedding);
    }
    if (config_.learned_theta) {
      backend_.Fill(0, gradients_.blocks[0].theta);
    }
  }
  head_.Run(final_normed_, weights_.head, batch.labels, gradient_scale, loss_sum, normed_gradient_,
            gradients_.head, adds);
  return absl::OkStatus();
}

absl::Status TransNormer::ForwardForEvaluation(const TokenBatch& batch, Tensor loss_sum) {
  LASP_RETURN_IF_ERROR(ForwardBlocks(batch));
  head_.Run(final_normed_, weights_.head, batch.labels, 0, loss_sum, Tensor{}, Tensor{}, false);
  return attention_.Finish();
}

absl::Status TransNormer::Backward(const TokenBatch& batch, DataParallel* reducer) {
  const auto final_from = [&](int64_t offset) {
    if (reducer != nullptr) {
      reducer->GradientsFinalFrom(offset);
    }
  };
  final_from(layout_.LayerOffset(config_.layers));
  backend_.RmsNormBackward(final_input_, final_inverse_rms_, normed_gradient_, Tensor{},
                           residual_gradient_);
  for (int64_t layer = config_.layers - 1; layer >= 0; --layer) {
    BlockActivations& block = activations_->ForBackward(layer);
    const BlockWeights& weights = weights_.blocks[layer];
    BlockWeights& gradients = gradients_.blocks[layer];
    ChannelMixerBackward(backend_, weights, block, residual_gradient_, product_scratch_, gradients,
                         adds_, normed_gradient_);
    backend_.RmsNormBackward(block.channel_input, block.channel_inverse_rms, normed_gradient_,
                             residual_gradient_, residual_gradient_);
    LASP_RETURN_IF_ERROR(TokenMixerBackward(backend_, attention_, attention_shapes_[layer], weights,
                                            block, residual_gradient_, mixer_scratch_, gradients,
                                            adds_, normed_gradient_));
    backend_.RmsNormBackward(block.mixer_input, block.mixer_inverse_rms, normed_gradient_,
                             residual_gradient_, residual_gradient_);
    final_from(layout_.LayerOffset(layer));
  }
  backend_.EmbeddingBackward(embedding_scale_, batch.ids, residual_gradient_, gradients_.embedding);
  final_from(0);
  return attention_.Finish();
}

}  // namespace lasp::worker
