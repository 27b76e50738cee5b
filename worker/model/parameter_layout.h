// Where each parameter lies in the one flat buffer of parameters, and in that of the gradients.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "worker/device/tensor.h"
#include "worker/model/model_config.h"
#include "worker/optim/adamw.h"

namespace lasp::worker {

struct Parameter {
  std::string name;
  int64_t rows = 0;     // of a Linear: outputs
  int64_t columns = 0;  // of a Linear: inputs
  int64_t offset = 0;   // elements
  bool decays = false;  // a matrix: subject to weight decay

  int64_t count() const { return rows * columns; }
};

// Views of one layer's part of a flat buffer.
struct BlockWeights {
  Tensor qkvu;      // [4 D, D]
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

// In the order in which the forward pass meets them, so that gradients become final from the end of
// the buffer to its start. Immutable.
class ParameterLayout {
 public:
  explicit ParameterLayout(const ModelConfig& config);

  const std::vector<Parameter>& parameters() const { return parameters_; }

  // Elements of the buffer.
  int64_t count() const { return count_; }

  // Elements before the first parameter of `layer`; count() less the head for layer == layers.
  int64_t LayerOffset(int64_t layer) const { return layer_offsets_[layer]; }

  // Contiguous ranges that are alike in weight decay.
  std::vector<ParameterRange> Ranges() const;
  // Views into a flat buffer [1, count()].
  ModelWeights Bind(Tensor flat) const;

 private:
  void Add(std::string name, int64_t rows, int64_t columns, bool decays);

  ModelConfig config_;
  std::vector<Parameter> parameters_;
  std::vector<int64_t> layer_offsets_;
  int64_t count_ = 0;
};

}  // namespace lasp::worker
