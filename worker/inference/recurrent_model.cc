#include "worker/inference/recurrent_model.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/decay_slopes.h"
#include "kernels/lrpe.h"
#include "proto/interchange/model_tensors.h"
#include "proto/rpc/status_macros.h"
#include "worker/model/channel_mixer.h"

namespace lasp::worker {
namespace {

// 16 MiB on their way from the disk to the device.
constexpr int64_t kElementsAtATime = int64_t{4} << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<RecurrentModel>> RecurrentModel::Create(const ModelConfig& config,
                                                                       const MicroBatchShape& most,
                                                                       Backend* backend,
                                                                       const WeightReader& read) {
  if (config.has_softmax()) {
    return absl::UnimplementedError(
        absl::StrCat("layer_pattern ", config.layer_pattern,
                     " has layers of softmax attention, which are computed in training only: train "
                     "with layer_pattern L"));
  }
  auto model = std::unique_ptr<RecurrentModel>(new RecurrentModel(config, most, backend));
  Arena plan;
  model->TakeMemory(plan);
  absl::StatusOr<Arena> arena = Arena::Create(*backend, plan.used_bytes());
  if (!arena.ok()) {
    return absl::Status(arena.status().code(),
                        absl::StrCat(arena.status().message(), " (", plan.bill().ToString(), ")"));
  }
  model->arena_ = *std::move(arena);
  model->TakeMemory(model->arena_);
  LASP_RETURN_IF_ERROR(model->ReadWeights(read));
  LASP_RETURN_IF_ERROR(model->FillConstants(read));
  model->Begin();
  return model;
}

void RecurrentModel::TakeMemory(Arena& arena) {
  const DType activation = backend_.activation_type();
  const int64_t hidden = config_.hidden_size;
  const auto take = [&](DType type, int64_t rows, int64_t columns) {
    return arena.Take(MemoryUse::kWorkspace, type, rows, columns);
  };
  const auto take_rows = [&](int64_t columns) { return take(activation, most_.rows(), columns); };
  flat_weights_ = arena.Take(MemoryUse::kWeights, activation, 1, layout_.count());
  weights_ = layout_.Bind(flat_weights_);
  if (activation != DType::kFloat32) {
    staging_ = take(DType::kFloat32, 1, std::min(kElementsAtATime, layout_.count()));
  }
  theta_ = take(DType::kFloat64, config_.heads, config_.head_size());
  attention_shapes_.clear();
  attention_shapes_.reserve(static_cast<size_t>(config_.layers));
  states_.clear();
  states_.reserve(static_cast<size_t>(config_.layers));
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    attention_shapes_.push_back({.batch = most_.sequences,
                                 .tokens = most_.tokens,
                                 .heads = config_.heads,
                                 .head_size = config_.head_size(),
                                 .lrpe = layer == 0 && !config_.linear_transformer,
                                 .normalised = config_.linear_transformer,
                                 .slopes = take(DType::kFloat64, 1, config_.heads),
                                 .theta = theta_});
    states_.push_back(attention_.TakeMemory(attention_shapes_.back(), arena));
  }
  attention_.TakeScratch(attention_shapes_[0], arena);
  const int64_t workspace_bytes = backend_.WorkspaceBytes(
      {.rows = most_.rows(), .hidden_size = hidden, .attention = attention_shapes_[0]});
  backend_.UseWorkspace(take(DType::kInt32, 1, (workspace_bytes + 3) / 4));
  ids_ = take(DType::kInt32, most_.rows(), 1);
  labels_ = take(DType::kInt32, most_.rows(), 1);
  const Tensor inverse_rms = take(backend_.accumulation_type(), most_.rows(), 1);
  const Tensor normed = take_rows(hidden);
  // One block's serve all layers, and what one half of a block has done with the other's.
  block_ = {.mixer_input = take_rows(hidden),
            .mixer_inverse_rms = inverse_rms,
            .mixer_normed = normed,
            .qkvu = take_rows(config_.widest_projection()),
            .qk = take_rows(2 * hidden),
            .attention = {},
            .attention_output = take_rows(hidden),
            .attention_inverse_rms = inverse_rms,
            .gated = take_rows(hidden),
            .denominators = take(backend_.accumulation_type(), most_.rows(), config_.heads),
            .softmax = {},
            .channel_input = take_rows(hidden),
            .channel_inverse_rms = inverse_rms,
            .channel_normed = normed,
            .l1_l2 = take_rows(2 * config_.glu_size)};
  final_normed_ = normed;
  branch_output_ = take_rows(hidden);
  product_scratch_ = take_rows(config_.glu_size);
  logits_ = take(backend_.accumulation_type(), 1, config_.vocab_size);
  loss_sum_ = take(DType::kFloat64, 1, 1);
  head_ = std::make_unique<LanguageHead>(most_.rows(), config_.vocab_size, &backend_, arena);
}

absl::Status RecurrentModel::ReadWeights(const WeightReader& read) {
  std::vector<float> buffer;
  for (const Parameter& parameter : layout_.parameters()) {
    for (int64_t begin = 0; begin < parameter.count(); begin += kElementsAtATime) {
      const int64_t count = std::min(parameter.count() - begin, kElementsAtATime);
      buffer.resize(static_cast<size_t>(count));
      LASP_RETURN_IF_ERROR(read(parameter.name, begin, count, buffer.data()));
      const Tensor weights = flat_weights_.Columns(parameter.offset + begin, count);
      if (staging_.empty()) {
        backend_.CopyFromHost(buffer.data(), weights);
        continue;
      }
      const Tensor staged = staging_.Columns(0, count);
      backend_.CopyFromHost(buffer.data(), staged);
      backend_.Convert(staged, weights);
    }
  }
  return backend_.Synchronize();
}

absl::Status RecurrentModel::FillConstants(const WeightReader& read) {
  std::vector<double> theta(static_cast<size_t>(theta_.count()));
  if (config_.learned_theta) {
    // Never by way of the weights, which may be bf16: it multiplies positions.
    std::vector<float> learned(theta.size());
    LASP_RETURN_IF_ERROR(read(kThetaTensor, 0, theta_.count(), learned.data()));
    theta.assign(learned.begin(), learned.end());
  } else {
    kernels::LrpeTheta(config_.heads, config_.head_size(), theta.data());
  }
  backend_.CopyFromHost(theta.data(), theta_);
  std::vector<double> slopes(static_cast<size_t>(config_.heads));
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    if (!config_.linear_transformer) {
      kernels::DecaySlopes(layer, config_.layers, config_.heads, slopes.data());
    }
    backend_.CopyFromHost(slopes.data(), attention_shapes_[layer].slopes);
  }
  backend_.Fill(0, loss_sum_);
  return backend_.Synchronize();
}

BlockActivations RecurrentModel::BlockOf(int64_t layer, int64_t rows) const {
  BlockActivations block = block_;
  for (Tensor* const tensor :
       {&block.mixer_input, &block.mixer_inverse_rms, &block.mixer_normed, &block.qkvu, &block.qk,
        &block.attention_output, &block.attention_inverse_rms, &block.gated, &block.denominators,
        &block.channel_input, &block.channel_inverse_rms, &block.channel_normed, &block.l1_l2}) {
    *tensor = tensor->Rows(0, rows);
  }
  block.attention = states_[layer];
  return block;
}

absl::Status RecurrentModel::Advance(absl::Span<const int32_t> ids) {
  rows_ = static_cast<int64_t>(ids.size());
  const int64_t tokens = rows_ / most_.sequences;
  if (tokens < 1 || tokens > most_.tokens || tokens * most_.sequences != rows_) {
    return absl::InvalidArgumentError(absl::StrCat("a chunk of ", rows_, " tokens for ",
                                                   most_.sequences, " sequences of ", most_.tokens,
                                                   " tokens at most"));
  }
  const Tensor branch = branch_output_.Rows(0, rows_);
  const Tensor chunk_ids = ids_.Rows(0, rows_);
  backend_.CopyFromHost(ids.data(), chunk_ids);
  Tensor stream = block_.mixer_input.Rows(0, rows_);
  backend_.EmbeddingForward(std::sqrt(static_cast<double>(config_.hidden_size)), chunk_ids,
                            weights_.embedding, stream);
  if (config_.linear_transformer) {
    backend_.linear_transformer()->AddPositions(position_, tokens, stream);
  }
  position_ += tokens;
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    BlockActivations block = BlockOf(layer, rows_);
    AttentionShape shape = attention_shapes_[layer];
    shape.tokens = tokens;
    const BlockWeights& weights = weights_.blocks[layer];
    // The first block's input has nothing to add to it.
    backend_.RmsNormForward(stream, layer == 0 ? Tensor{} : branch,
                            layer == 0 ? Tensor{} : block.mixer_input, block.mixer_normed,
                            block.mixer_inverse_rms);
    LASP_RETURN_IF_ERROR(mixer_->Forward(shape, weights, block, branch));
    backend_.RmsNormForward(block.mixer_input, branch, block.channel_input, block.channel_normed,
                            block.channel_inverse_rms);
    ChannelMixerForward(backend_, weights, block, product_scratch_.Rows(0, rows_), branch);
    stream = block.channel_input;
  }
  const BlockActivations last = BlockOf(0, rows_);
  backend_.RmsNormForward(stream, branch, last.mixer_input, final_normed_.Rows(0, rows_),
                          last.mixer_inverse_rms);
  return absl::OkStatus();
}

absl::Status RecurrentModel::Logits(int64_t sequence, std::vector<float>* logits) {
  const int64_t tokens = rows_ / most_.sequences;
  backend_.Gemm(false, final_normed_.Rows((sequence + 1) * tokens - 1, 1), true, weights_.head, 0,
                logits_);
  logits->resize(static_cast<size_t>(config_.vocab_size));
  if (logits_.dtype == DType::kFloat64) {
    std::vector<double> wide(logits->size());
    backend_.CopyToHost(logits_, wide.data());
    std::copy(wide.begin(), wide.end(), logits->begin());
  } else {
    backend_.CopyToHost(logits_, logits->data());
  }
  return backend_.Synchronize();
}

absl::Status RecurrentModel::AddLoss(absl::Span<const int32_t> labels) {
  if (static_cast<int64_t>(labels.size()) != rows_) {
    return absl::InvalidArgumentError(
        absl::StrCat(labels.size(), " labels for a chunk of ", rows_, " tokens"));
  }
  backend_.CopyFromHost(labels.data(), labels_.Rows(0, rows_));
  head_->Run(final_normed_.Rows(0, rows_), weights_.head, labels_.Rows(0, rows_), 0, loss_sum_,
             Tensor{}, Tensor{}, false);
  return absl::OkStatus();
}

absl::StatusOr<double> RecurrentModel::LossSum() {
  double sum = 0;
  backend_.CopyToHost(loss_sum_, &sum);
  LASP_RETURN_IF_ERROR(backend_.Synchronize());
  return sum;
}

}  // namespace lasp::worker
