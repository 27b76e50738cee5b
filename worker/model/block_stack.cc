#include "worker/model/block_stack.h"

#include "proto/rpc/status_macros.h"

namespace lasp::worker {

BlockStack::BlockStack(const ModelConfig& config, const MicroBatchShape& shape,
                       const ActivationOptions& activations, const Parts& parts, Arena& arena)
    : config_(config),
      parts_(parts),
      backend_(*parts.backend),
      attention_(*parts.attention),
      parallel_(*parts.parallel),
      layers_(config, shape, parts.backend, arena),
      linear_mixer_(CreateTokenMixer(config, parts.backend, parts.attention)),
      softmax_mixer_(config.has_softmax()
                         ? CreateSoftmaxTokenMixer(config, parts.backend, parts.attention)
                         : nullptr),
      channel_mixer_(parts.backend, parts.attention->tensor_parallel()),
      carried_(activations.carried) {
  attention_.ExpectAtEnd(shape.last);
  activations_ = TakeActivations(config, shape, activations, layers_, backend_, attention_, arena);
  if (TensorParallel* const ranks = attention_.tensor_parallel(); ranks != nullptr) {
    ranks->TakeScratch(layers_.Widest(0), arena);
  }
  if (config.has_linear()) {
    attention_.TakeScratch(layers_.Widest(config.first_linear()), arena);
  }
  if (config.has_softmax()) {
    attention_.softmax()->TakeScratch(layers_.Widest(config.first_softmax()), arena);
  }
  backend_.UseWorkspace(arena.Take(MemoryUse::kWorkspace, DType::kInt32, 1,
                                   (layers_.WorkspaceBytes(backend_, attention_) + 3) / 4));
  const auto take = [&](int64_t rows, int64_t columns) {
    return arena.Take(MemoryUse::kWorkspace, backend_.activation_type(), rows, columns);
  };
  branch_output_ = take(shape.rows(), config.hidden_size);
  const int64_t computed = layers_.ComputedRows(shape.rows());
  product_scratch_ = take(computed, config.own_glu_size());
  mixer_scratch_ = {.gated_gradient = take(computed, config.own_width()),
                    .qkvu_gradient = take(computed, config.widest_projection())};
}

BlockActivations BlockStack::PartOf(BlockActivations block, int64_t layer, int64_t rows) const {
  for (Tensor* const tensor :
       {&block.mixer_input, &block.mixer_inverse_rms, &block.mixer_normed, &block.channel_input,
        &block.channel_inverse_rms, &block.channel_normed}) {
    *tensor = tensor->Rows(0, rows);
  }
  for (Tensor* const tensor :
       {&block.qkvu, &block.qk, &block.attention_output, &block.attention_inverse_rms, &block.gated,
        &block.denominators, &block.l1_l2}) {
    *tensor = tensor->Rows(0, layers_.ComputedRows(rows));
  }
  if (carried_ != nullptr) {
    carried_->PutInto(layer, &block.attention);
  }
  return block;
}

absl::Status BlockStack::UseForward(int64_t layer) {
  const bool last = layer + 1 == config_.layers;
  return parallel_.UseWeights(
      ParameterLayout::BlockUnit(layer),
      last ? parts_.layout->HeadUnit() : ParameterLayout::BlockUnit(layer + 1));
}

absl::Status BlockStack::UseBackward(int64_t layer) {
  return parallel_.UseWeights(ParameterLayout::BlockUnit(layer),
                              layer > 0 ? ParameterLayout::BlockUnit(layer - 1) : kNoUnit);
}

void BlockStack::BeginForward(const TokenBatch& batch) {
  attention_.UseSlices(batch.slices);
  attention_.UseDocuments(batch.documents);
  layers_.UseBatch(batch);
}

absl::StatusOr<Tensor> BlockStack::Input(int64_t rows) {
  LASP_ASSIGN_OR_RETURN(const BlockActivations first, activations_->ForForward(0));
  return first.mixer_input.Rows(0, rows);
}

void BlockStack::NormInput(int64_t layer, Tensor stream, const BlockActivations& block) {
  if (stream.rows == 0) {
    return;
  }
  // The first block's input has nothing to add to it.
  const bool adds = layer > 0;
  backend_.RmsNormForward(stream, adds ? Branch(stream.rows) : Tensor{},
                          adds ? block.mixer_input : Tensor{}, block.mixer_normed,
                          block.mixer_inverse_rms);
}

void BlockStack::NormChannelInput(Tensor branch, const BlockActivations& block) {
  if (branch.rows > 0) {
    backend_.RmsNormForward(block.mixer_input, branch, block.channel_input, block.channel_normed,
                            block.channel_inverse_rms);
  }
}

void BlockStack::AddNormGradient(Tensor input, Tensor inverse_rms, Tensor normed_gradient,
                                 Tensor residual_gradient) {
  if (input.rows > 0) {
    backend_.RmsNormBackward(input, inverse_rms, normed_gradient, residual_gradient,
                             residual_gradient);
  }
}

absl::StatusOr<Tensor> BlockStack::Forward(int64_t layer, StatesBefore states, Tensor stream) {
  const int64_t rows = stream.rows;
  LASP_ASSIGN_OR_RETURN(const BlockActivations taken, activations_->ForForward(layer));
  BlockActivations block = PartOf(taken, layer, rows);
  const BlockWeights& weights = parts_.weights->blocks[layer];
  const Tensor branch = Branch(rows);
  LASP_RETURN_IF_ERROR(UseForward(layer));
  NormInput(layer, stream, block);
  LASP_RETURN_IF_ERROR(activations_->InputWritten(layer));
  if (states == StatesBefore::kKept) {
    LASP_RETURN_IF_ERROR(MixerOf(layer).Recompute(layers_.Of(layer, rows), weights,
                                                  Recomputation::kBlock, block, branch));
  } else {
    LASP_RETURN_IF_ERROR(MixerOf(layer).Forward(layers_.Of(layer, rows), weights, block, branch));
  }
  NormChannelInput(branch, block);
  LASP_RETURN_IF_ERROR(channel_mixer_.Forward(
      weights, block, product_scratch_.Rows(0, layers_.ComputedRows(rows)), branch));
  return block.channel_input;
}

absl::Status BlockStack::ForwardLastState(Tensor stream) {
  const int64_t last = config_.layers - 1;
  LASP_ASSIGN_OR_RETURN(const BlockActivations taken, activations_->ForForward(last));
  BlockActivations block = PartOf(taken, last, stream.rows);
  LASP_RETURN_IF_ERROR(
      parallel_.UseWeights(ParameterLayout::BlockUnit(last), ParameterLayout::kEmbedding));
  NormInput(last, stream, block);
  return MixerOf(last).States(layers_.Of(last, stream.rows), parts_.weights->blocks[last], block);
}

absl::Status BlockStack::Recompute(int64_t layer, BlockActivations& block) {
  const Recomputation missing = activations_->Missing(layer);
  if (missing == Recomputation::kNothing) {
    return absl::OkStatus();
  }
  const BlockWeights& weights = parts_.weights->blocks[layer];
  const int64_t rows = block.mixer_input.rows;
  const Tensor branch = Branch(rows);
  backend_.RmsNormForward(block.mixer_input, Tensor{}, Tensor{}, block.mixer_normed,
                          block.mixer_inverse_rms);
  LASP_RETURN_IF_ERROR(
      MixerOf(layer).Recompute(layers_.Of(layer, rows), weights, missing, block, branch));
  if (missing == Recomputation::kBlock) {
    NormChannelInput(branch, block);
    return channel_mixer_.Recompute(weights, block);
  }
  backend_.RmsNormForward(block.channel_input, Tensor{}, Tensor{}, block.channel_normed,
                          block.channel_inverse_rms);
  return absl::OkStatus();
}

absl::Status BlockStack::Backward(int64_t layer, bool adds, bool last, Tensor residual_gradient,
                                  Tensor normed_gradient) {
  const int64_t unit = ParameterLayout::BlockUnit(layer);
  const int64_t rows = residual_gradient.rows;
  LASP_RETURN_IF_ERROR(UseBackward(layer));
  LASP_ASSIGN_OR_RETURN(const BlockActivations kept, activations_->ForBackward(layer));
  BlockActivations block = PartOf(kept, layer, rows);
  LASP_RETURN_IF_ERROR(Recompute(layer, block));
  const BlockWeights& weights = parts_.weights->blocks[layer];
  BlockWeights& gradients = parts_.gradients->blocks[layer];
  LASP_RETURN_IF_ERROR(parallel_.UseGradients(unit));
  if (!adds && !gradients.theta.empty()) {
    backend_.Fill(0, gradients.theta);  // it is always added to
  }
  const int64_t computed = layers_.ComputedRows(rows);
  LASP_RETURN_IF_ERROR(channel_mixer_.Backward(weights, block, residual_gradient,
                                               product_scratch_.Rows(0, computed), gradients, adds,
                                               normed_gradient));
  AddNormGradient(block.channel_input, block.channel_inverse_rms, normed_gradient,
                  residual_gradient);
  LASP_RETURN_IF_ERROR(
      MixerOf(layer).Backward(layers_.Of(layer, rows), weights, block, residual_gradient,
                              {.gated_gradient = mixer_scratch_.gated_gradient.Rows(0, computed),
                               .qkvu_gradient = mixer_scratch_.qkvu_gradient.Rows(0, computed)
                                                    .Columns(0, config_.projection_size(layer))},
                              gradients, adds, normed_gradient));
  AddNormGradient(block.mixer_input, block.mixer_inverse_rms, normed_gradient, residual_gradient);
  parallel_.GradientsDone(unit, last);
  return absl::OkStatus();
}

absl::Status BlockStack::PassStates(int64_t layer, StatesBefore states) {
  const AttentionShape shape = layers_.Of(layer, 0);
  LASP_ASSIGN_OR_RETURN(const BlockActivations taken, activations_->ForForward(layer));
  const AttentionMemory memory = PartOf(taken, layer, 0).attention;
  LASP_RETURN_IF_ERROR(UseForward(layer));
  if (states == StatesBefore::kKept) {
    return attention_.Recompute(shape, {}, memory, Tensor{});
  }
  LASP_RETURN_IF_ERROR(attention_.BeginForward(shape, {}, memory));
  return attention_.EndForward(shape, {}, memory, Tensor{});
}

absl::Status BlockStack::PassGradients(int64_t layer, bool adds, bool last) {
  const int64_t unit = ParameterLayout::BlockUnit(layer);
  LASP_RETURN_IF_ERROR(UseBackward(layer));
  LASP_ASSIGN_OR_RETURN(const BlockActivations kept, activations_->ForBackward(layer));
  const AttentionMemory memory = PartOf(kept, layer, 0).attention;
  LASP_RETURN_IF_ERROR(UseUntouched(unit, adds));
  // Only of the frequencies: a rank may have heads of other ranks' tokens.
  LASP_RETURN_IF_ERROR(attention_.Backward(
      layers_.Of(layer, 0), {}, memory, Tensor{},
      {.q = {}, .k = {}, .v = {}, .theta = parts_.gradients->blocks[layer].theta}));
  parallel_.GradientsDone(unit, last);
  return absl::OkStatus();
}

absl::Status BlockStack::UseUntouched(int64_t unit, bool adds) {
  LASP_RETURN_IF_ERROR(parallel_.UseGradients(unit));
  if (!adds) {
    backend_.Fill(0, parallel_.gradients(unit));
  }
  return absl::OkStatus();
}

}  // namespace lasp::worker
