#include "worker/model/transnormer.h"

#include <cmath>

#include "proto/rpc/status_macros.h"

namespace lasp::worker {

TransNormer::TransNormer(const ModelConfig& config, const MicroBatchShape& shape,
                         const ActivationOptions& activations, const ParameterLayout* layout,
                         const ParameterTensors& parameters, Backend* backend,
                         SequenceParallel* attention, Arena& arena)
    : config_(config),
      sequences_(shape.sequences),
      layout_(*layout),
      backend_(*backend),
      attention_(*attention),
      parallel_(*parameters.parallel),
      learned_theta_(parameters.learned_theta),
      weights_(layout->Bind([&](int64_t unit) { return parallel_.weights(unit); })),
      gradients_(layout->Bind([&](int64_t unit) { return parallel_.gradients(unit); })),
      embedding_scale_(std::sqrt(static_cast<double>(config.hidden_size))),
      head_(shape.rows(), config.vocab_size, backend, arena),
      blocks_(config, shape, activations,
              {.layout = layout,
               .weights = &weights_,
               .gradients = &gradients_,
               .parallel = parameters.parallel,
               .backend = backend,
               .attention = attention},
              arena) {
  const auto take = [&](MemoryUse use) {
    return arena.Take(use, backend_.activation_type(), shape.rows(), config.hidden_size);
  };
  final_input_ = take(MemoryUse::kActivations);
  final_inverse_rms_ =
      arena.Take(MemoryUse::kActivations, backend_.accumulation_type(), shape.rows(), 1);
  final_normed_ = take(MemoryUse::kActivations);
  residual_gradient_ = take(MemoryUse::kWorkspace);
  normed_gradient_ = take(MemoryUse::kWorkspace);
}

void TransNormer::BeginForward(const TokenBatch& batch) {
  blocks_.BeginForward(batch);
  if (config_.learned_theta) {
    backend_.Convert(learned_theta_, blocks_.theta());
  }
}

absl::StatusOr<Tensor> TransNormer::ForwardFirst(int64_t layers, const TokenBatch& batch,
                                                 States states) {
  const int64_t rows = batch.ids.rows;
  LASP_RETURN_IF_ERROR(
      parallel_.UseWeights(ParameterLayout::kEmbedding, ParameterLayout::BlockUnit(0)));
  LASP_ASSIGN_OR_RETURN(Tensor stream, blocks_.Input(rows));
  if (rows > 0) {
    backend_.EmbeddingForward(embedding_scale_, batch.ids, weights_.embedding, stream);
    if (config_.linear_transformer) {
      backend_.linear_transformer()->AddPositions(batch.first_position, rows / sequences_, stream);
    }
  }
  for (int64_t layer = 0; layer < layers; ++layer) {
    LASP_ASSIGN_OR_RETURN(stream, blocks_.Forward(layer, states, stream));
  }
  return stream;
}

absl::Status TransNormer::ForwardBlocks(const TokenBatch& batch, States states) {
  const int64_t rows = batch.ids.rows;
  LASP_ASSIGN_OR_RETURN(const Tensor stream, ForwardFirst(config_.layers, batch, states));
  if (rows > 0) {
    backend_.RmsNormForward(stream, blocks_.Branch(rows), final_input_.Rows(0, rows),
                            final_normed_.Rows(0, rows), final_inverse_rms_.Rows(0, rows));
  }
  return parallel_.UseWeights(layout_.HeadUnit(), kNoUnit);
}

absl::Status TransNormer::PassStates(States states) {
  LASP_RETURN_IF_ERROR(
      parallel_.UseWeights(ParameterLayout::kEmbedding, ParameterLayout::BlockUnit(0)));
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    LASP_RETURN_IF_ERROR(blocks_.PassStates(layer, states));
  }
  return parallel_.UseWeights(layout_.HeadUnit(), kNoUnit);
}

absl::Status TransNormer::PassGradients(bool last) {
  if (!config_.tie_embeddings) {
    LASP_RETURN_IF_ERROR(blocks_.UseUntouched(layout_.HeadUnit(), adds_));
    parallel_.GradientsDone(layout_.HeadUnit(), last);
  }
  for (int64_t layer = config_.layers - 1; layer >= 0; --layer) {
    LASP_RETURN_IF_ERROR(blocks_.PassGradients(layer, adds_, last));
  }
  LASP_RETURN_IF_ERROR(blocks_.UseUntouched(ParameterLayout::kEmbedding, adds_));
  parallel_.GradientsDone(ParameterLayout::kEmbedding, last);
  return absl::OkStatus();
}

absl::Status TransNormer::ForwardStates(const TokenBatch& batch) {
  BeginForward(batch);
  LASP_ASSIGN_OR_RETURN(const Tensor stream,
                        ForwardFirst(config_.layers - 1, batch, States::kExchanged));
  LASP_RETURN_IF_ERROR(blocks_.ForwardLastState(stream));
  return attention_.Finish();
}

absl::Status TransNormer::ForwardForTraining(const TokenBatch& batch, States states,
                                             double gradient_scale, Tensor loss_sum, bool adds) {
  BeginForward(batch);
  adds_ = adds && parallel_.keeps_sums();
  if (SitsOut(batch)) {
    return PassStates(states);
  }
  LASP_RETURN_IF_ERROR(ForwardBlocks(batch, states));
  const int64_t rows = batch.ids.rows;
  if (rows == 0) {
    return blocks_.UseUntouched(layout_.HeadUnit(), adds_);
  }
  LASP_RETURN_IF_ERROR(parallel_.UseGradients(layout_.HeadUnit()));
  head_.Run(final_normed_.Rows(0, rows), weights_.head, batch.labels, gradient_scale, loss_sum,
            normed_gradient_.Rows(0, rows), gradients_.head, adds_);
  return absl::OkStatus();
}

absl::Status TransNormer::ForwardForEvaluation(const TokenBatch& batch, Tensor loss_sum) {
  BeginForward(batch);
  if (SitsOut(batch)) {
    LASP_RETURN_IF_ERROR(PassStates(States::kExchanged));
    return attention_.Finish();
  }
  LASP_RETURN_IF_ERROR(ForwardBlocks(batch, States::kExchanged));
  const int64_t rows = batch.ids.rows;
  if (rows > 0) {
    head_.Run(final_normed_.Rows(0, rows), weights_.head, batch.labels, 0, loss_sum, Tensor{},
              Tensor{}, false);
  }
  return attention_.Finish();
}

absl::Status TransNormer::Backward(const TokenBatch& batch, bool last) {
  if (SitsOut(batch)) {
    LASP_RETURN_IF_ERROR(PassGradients(last));
    return attention_.Finish();
  }
  const int64_t rows = batch.ids.rows;
  if (!config_.tie_embeddings) {
    parallel_.GradientsDone(layout_.HeadUnit(), last);
  }
  const Tensor residual_gradient = residual_gradient_.Rows(0, rows);
  const Tensor normed_gradient = normed_gradient_.Rows(0, rows);
  if (rows > 0) {
    backend_.RmsNormBackward(final_input_.Rows(0, rows), final_inverse_rms_.Rows(0, rows),
                             normed_gradient, Tensor{}, residual_gradient);
  }
  for (int64_t layer = config_.layers - 1; layer >= 0; --layer) {
    LASP_RETURN_IF_ERROR(blocks_.Backward(layer, adds_, last, residual_gradient, normed_gradient));
  }
  // The embedding's is always added to, as theta's; a tied one has the head's.
  if (!config_.tie_embeddings) {
    LASP_RETURN_IF_ERROR(parallel_.UseGradients(ParameterLayout::kEmbedding));
    if (!adds_) {
      backend_.Fill(0, gradients_.embedding);
    }
  }
  if (rows > 0) {
    backend_.EmbeddingBackward(embedding_scale_, batch.ids, residual_gradient,
                               gradients_.embedding);
  }
  parallel_.GradientsDone(ParameterLayout::kEmbedding, last);
  return attention_.Finish();
}

}  // namespace lasp::worker
