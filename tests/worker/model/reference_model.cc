#include "tests/worker/model/reference_model.h"

#include <cmath>
#include <string>

namespace lasp::worker {
namespace {

std::vector<double> Slice(const std::vector<double>& values, int64_t begin, int64_t count) {
  return {values.begin() + begin, values.begin() + begin + count};
}

}  // namespace

kernels::reference::TransNormer ReferenceModel(const ModelConfig& config,
                                               const ParameterLayout& layout,
                                               const std::vector<double>& parameters) {
  kernels::reference::TransNormer model{.linear_transformer = config.linear_transformer,
                                        .hidden_size = config.hidden_size,
                                        .heads = config.heads,
                                        .glu_size = config.glu_size,
                                        .vocabulary = config.vocab_size,
                                        .rotary_base = config.rotary_base,
                                        .embedding = {},
                                        .head = {},
                                        .blocks = {}};
  model.blocks.resize(static_cast<size_t>(config.layers));
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    model.blocks[static_cast<size_t>(layer)].kv_heads = config.softmax(layer) ? config.kv_heads : 0;
  }
  for (const Parameter& parameter : layout.parameters()) {
    const std::vector<double> values = Slice(parameters, parameter.offset, parameter.count());
    const std::string& name = parameter.name;
    const auto is = [&](const char* part) { return name.find(part) != std::string::npos; };
    if (is("embed_tokens")) {
      model.embedding = values;
    } else if (is("lm_head")) {
      model.head = values;
    } else {
      auto& block =
          model.blocks[static_cast<size_t>(name[std::string("model.layers.").size()] - '0')];
      if (is("qkvu_proj") || is("qkv_proj")) {
        block.qkvu = values;
      } else if (is("out_proj")) {
        block.output = values;
      } else if (is("theta")) {
        block.theta = values;
      } else if (is("l3")) {
        block.glu_output = values;
      } else {
        block.glu_input.insert(block.glu_input.end(), values.begin(), values.end());
      }
    }
  }
  if (!config.learned_theta && !config.linear_transformer && !config.softmax(0)) {
    for (int64_t i = 0; i < config.hidden_size; ++i) {
      model.blocks[0].theta.push_back(std::pow(
          10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(config.hidden_size)));
    }
  }
  return model;
}

}  // namespace lasp::worker
