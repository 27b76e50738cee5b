// Where each parameter lies in the one flat buffer of parameters, and in that of the gradients.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "worker/device/tensor.h"
#include "worker/model/model_config.h"
#include "worker/optim/adamw.h"
#include "worker/parallel/data_parallel.h"

namespace lasp::worker {

struct Parameter {
  std::string name;
  int64_t rows = 0;     // of a Linear: outputs
  int64_t columns = 0;  // of a Linear: inputs
  int64_t offset = 0;   // elements
  bool decays = false;  // a matrix: subject to weight decay
  // The rows of the matrices that lie one above the other, each of which ranks share out by itself.
  std::vector<int64_t> stacked = {};

  int64_t count() const { return rows * columns; }
};

// Views of one layer's part of a flat buffer.
struct BlockWeights {
  Tensor qkvu;      // [ModelConfig::projection_size, D]: queries above keys above values
  Tensor out_proj;  // [D, D]
  Tensor theta;     // [heads, head_size]; empty unless learned, and in the first layer
  Tensor l1_l2;     // [2 G, D]: l1 above l2
  Tensor l3;        // [D, G]
};

struct ModelWeights {
  Tensor embedding;  // [V, D]
  std::vector<BlockWeights> blocks;
  Tensor head;  // [V, D]; the embedding where it is tied
};

// With tensor parallelism: of what this rank has. In the order in which the forward pass meets
// them, so that gradients become final from the end of the buffer to its start. Immutable.
class ParameterLayout {
 public:
  explicit ParameterLayout(const ModelConfig& config);

  const std::vector<Parameter>& parameters() const { return parameters_; }

  // Elements of the buffer.
  int64_t count() const { return count_; }

  // The embedding, the blocks in their order, and the head where it is not the embedding.
  const std::vector<ParameterUnit>& units() const { return units_; }

  static constexpr int64_t kEmbedding = 0;

  static constexpr int64_t BlockUnit(int64_t layer) { return layer + 1; }

  int64_t HeadUnit() const { return config_.tie_embeddings ? kEmbedding : config_.layers + 1; }

  // Contiguous ranges that are alike in weight decay.
  std::vector<ParameterRange> Ranges() const;
  // Views into a flat buffer [1, count()].
  ModelWeights Bind(Tensor flat) const;
  // Into one [1, count of the unit] for each unit.
  ModelWeights Bind(const std::function<Tensor(int64_t unit)>& flat_of) const;

 private:
  // With all rows of `stacked`.
  void Add(std::string name, std::vector<int64_t> stacked, int64_t columns, bool decays);
  void BeginUnit(int slot);

  ModelConfig config_;
  std::vector<Parameter> parameters_;
  std::vector<ParameterUnit> units_;
  int64_t count_ = 0;
};

}  // namespace lasp::worker
