#include "worker/model/parameter_layout.h"

#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"

namespace lasp::worker {
namespace {

// The rows of a layer's queries, keys, values and, where there is one, gate.
std::vector<int64_t> ProjectionRows(const ModelConfig& config, int64_t layer) {
  if (config.softmax(layer)) {
    return {config.own_width(), config.own_kv_width(), config.own_kv_width()};
  }
  return std::vector<int64_t>(config.linear_transformer ? 3 : 4, config.own_width());
}

}  // namespace

ParameterLayout::ParameterLayout(const ModelConfig& config) : config_(config) {
  const int64_t hidden = config.hidden_size;
  BeginUnit(0);
  Add("model.embed_tokens.weight", {config.vocab_size}, hidden, true);
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    // The next block's weights come while this one computes.
    BeginUnit(static_cast<int>(1 + layer % 2));
    units_.back().shared_out = config.tensor_ranks > 1;
    const std::string mixer = absl::StrCat("model.layers.", layer, ".token_mixer.");
    const std::string channel = absl::StrCat("model.layers.", layer, ".channel_mixer.");
    const bool gated = !config.linear_transformer && !config.softmax(layer);
    Add(mixer + (gated ? "qkvu_proj.weight" : "qkv_proj.weight"), ProjectionRows(config, layer),
        hidden, true);
    Add(mixer + "out_proj.weight", {hidden}, config.own_width(), true);
    if (layer == 0 && config.learned_theta) {
      Add(mixer + "lrpe.theta", {config.own_heads()}, config.head_size(), false);
    }
    Add(channel + "l1.weight", {config.own_glu_size()}, hidden, true);
    Add(channel + "l2.weight", {config.own_glu_size()}, hidden, true);
    Add(channel + "l3.weight", {hidden}, config.own_glu_size(), true);
  }
  if (!config.tie_embeddings) {
    BeginUnit(0);
    Add("lm_head.weight", {config.vocab_size}, hidden, true);
  }
}

void ParameterLayout::Add(std::string name, std::vector<int64_t> stacked, int64_t columns,
                          bool decays) {
  const int64_t rows = std::accumulate(stacked.begin(), stacked.end(), int64_t{0});
  parameters_.push_back({std::move(name), rows, columns, count_, decays, std::move(stacked)});
  count_ += rows * columns;
  units_.back().count += rows * columns;
}

void ParameterLayout::BeginUnit(int slot) {
  units_.push_back({.begin = count_, .count = 0, .slot = slot});
}

std::vector<ParameterRange> ParameterLayout::Ranges() const {
  std::vector<ParameterRange> ranges;
  for (const Parameter& parameter : parameters_) {
    if (ranges.empty() || ranges.back().decays != parameter.decays) {
      ranges.push_back({parameter.offset, 0, parameter.decays});
    }
    ranges.back().count += parameter.count();
  }
  return ranges;
}

ModelWeights ParameterLayout::Bind(Tensor flat) const {
  return Bind([&](int64_t unit) {
    const ParameterUnit& range = units_[static_cast<size_t>(unit)];
    return flat.Columns(range.begin, range.count);
  });
}

ModelWeights ParameterLayout::Bind(const std::function<Tensor(int64_t unit)>& flat_of) const {
  size_t next = 0;
  int64_t unit = 0;
  const auto take = [&](int64_t parameters) {
    const Parameter& first = parameters_[next];
    const int64_t rows = parameters * first.rows;
    next += static_cast<size_t>(parameters);
    return flat_of(unit)
        .Columns(first.offset - units_[static_cast<size_t>(unit)].begin, rows * first.columns)
        .Reshape(rows, first.columns);
  };
  ModelWeights weights;
  weights.embedding = take(1);
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    unit = BlockUnit(layer);
    BlockWeights block;
    block.qkvu = take(1);
    block.out_proj = take(1);
    if (layer == 0 && config_.learned_theta) {
      block.theta = take(1);
    }
    block.l1_l2 = take(2);
    block.l3 = take(1);
    weights.blocks.push_back(block);
  }
  unit = HeadUnit();
  weights.head = config_.tie_embeddings ? weights.embedding : take(1);
  return weights;
}

}  // namespace lasp::worker
