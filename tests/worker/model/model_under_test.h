// A TransNormer on one local rank, with everything it needs, driven from host vectors.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/worker/parallel/local_ranks.h"
#include "worker/device/arena.h"
#include "worker/model/model_config.h"
#include "worker/model/parameter_layout.h"
#include "worker/model/transnormer.h"

namespace lasp::worker {

class ModelUnderTest {
 public:
  // sequences: of one replica; tokens: of each, on this rank.
  static absl::StatusOr<std::unique_ptr<ModelUnderTest>> Create(const ModelConfig& config,
                                                                const MicroBatchShape& shape,
                                                                LocalRank& rank);

  const ParameterLayout& layout() const { return layout_; }

  // [layout().count()], in the backend's precision.
  void SetParameters(const std::vector<double>& parameters);

  std::vector<double> Parameters() const { return Read(parameters_.masters); }

  // Summed over the world.
  std::vector<double> Gradients() const { return Read(parameters_.gradients); }

  // Forward and backward of whole sequences [shape.sequences, full_length], of which this rank
  // takes its slice. Returns the mean loss over the world's labels, which every rank gives alike.
  absl::StatusOr<double> Run(const std::vector<int32_t>& ids, const std::vector<int32_t>& labels);

 private:
  ModelUnderTest(const ModelConfig& config, const MicroBatchShape& shape, LocalRank& rank)
      : config_(config), shape_(shape), rank_(rank), layout_(config) {}

  void TakeMemory(Arena& arena);
  std::vector<double> Read(Tensor tensor) const;
  void Upload(const std::vector<int32_t>& whole, Tensor slice);

  const ModelConfig config_;
  const MicroBatchShape shape_;
  LocalRank& rank_;
  const ParameterLayout layout_;
  Arena arena_;
  ParameterTensors parameters_;
  Tensor loss_;
  TokenBatch tokens_;
  std::unique_ptr<SequenceParallel> attention_;
  std::unique_ptr<TransNormer> model_;
};

// Tokens of some sequences and their labels, which are the tokens shifted by one.
struct RandomSequences {
  std::vector<int32_t> ids;
  std::vector<int32_t> labels;
};

RandomSequences MakeSequences(int64_t sequences, int64_t length, int64_t vocab_size, uint32_t seed);

}  // namespace lasp::worker
