// A TransNormer on one local rank, with everything it needs, driven from host vectors.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/worker/parallel/local_ranks.h"
#include "tests/worker/parallel/sequence_parallel_methods.h"
#include "worker/data/macro_chunks.h"
#include "worker/device/arena.h"
#include "worker/engine/activation_memory.h"
#include "worker/engine/sequence_sweep.h"
#include "worker/model/model_config.h"
#include "worker/model/parameter_layout.h"
#include "worker/model/transnormer.h"
#include "worker/parallel/document_marks.h"

namespace lasp::worker {

// How the activations are kept.
struct TestedPlan {
  SequenceParallelMethod method = {};
  Recomputation recomputation = Recomputation::kNothing;
  bool offloads = false;
  // Where given, the whole sequences' length, of which a rank takes so many tokens at a time.
  int64_t stream_length = 0;
  // Where given, the tokens of each sequence at which documents start.
  std::vector<std::vector<int64_t>> documents = {};
  // Of the sequences' first token.
  int64_t first_position = 0;
};

class ModelUnderTest {
 public:
  // sequences: of one replica; tokens: of each, on this rank.
  static absl::StatusOr<std::unique_ptr<ModelUnderTest>> Create(const ModelConfig& config,
                                                                const MicroBatchShape& shape,
                                                                LocalRank& rank,
                                                                const TestedPlan& plan = {});

  // Of the whole model.
  const ParameterLayout& layout() const { return layout_; }

  // [layout().count()], in the backend's precision. With MEGATRON_SP a rank takes its share.
  void SetParameters(const std::vector<double>& parameters);

  // Normal deviates, for SetParameters.
  std::vector<double> RandomParameters(uint32_t seed, double deviation) const;

  // What this rank has of them.
  std::vector<double> Parameters() const { return Read(parallel_->masters()); }

  const MemoryBill& memory() const { return arena_.bill(); }

  // Of the whole model, as the last Run left them: summed over the world.
  std::vector<double> Gradients() const {
    return whole_gradients_.empty() ? Read(parallel_->owned()[0].gradient) : whole_gradients_;
  }

  // Forward and backward of whole sequences [shape.sequences, full_length], of which this rank
  // takes its slice. Returns the mean loss over the world's labels, which every rank gives alike.
  // `fetching` is called before each macro-chunk of a pass.
  absl::StatusOr<double> Run(
      const std::vector<int32_t>& ids, const std::vector<int32_t>& labels,
      const std::function<void()>& fetching = [] {});
  // The loss alone.
  absl::StatusOr<double> Evaluate(const std::vector<int32_t>& ids,
                                  const std::vector<int32_t>& labels);

 private:
  ModelUnderTest(const ModelConfig& config, const MicroBatchShape& shape, LocalRank& rank,
                 const TestedPlan& plan)
      : config_(config),
        chunks_(plan.stream_length > 0 ? plan.stream_length : shape.tokens * rank.grid.sp_size(),
                rank.grid.sp_size(), shape.tokens),
        shape_{.sequences = shape.sequences,
               .tokens = chunks_.slice_tokens(),
               .last = chunks_.last_slices()},
        rank_(rank),
        plan_(plan),
        layout_(config),
        own_config_(OwnConfig(config, rank, plan)),
        own_layout_(own_config_) {}

  static ModelConfig OwnConfig(ModelConfig config, const LocalRank& rank, const TestedPlan& plan) {
    if (plan.method.method == lasp::v1::SequenceParallelSpec::METHOD_MEGATRON_SP) {
      config.tensor_ranks = rank.grid.sp_size();
      config.tensor_rank = rank.grid.sp_rank();
    }
    return config;
  }

  absl::Status TakeMemory(Arena& arena);
  // What this rank has of `whole`, and its reverse: of what all ranks have.
  std::vector<double> OwnOf(const std::vector<double>& whole) const;
  absl::StatusOr<std::vector<double>> WholeOf(const std::vector<double>& own);
  std::vector<double> Read(Tensor tensor) const;
  // This rank's slice of a macro-chunk of `whole`.
  Tensor Upload(const std::vector<int32_t>& whole, int64_t chunk, Tensor tokens);
  TokenBatch Upload(const std::vector<int32_t>& ids, const std::vector<int32_t>& labels,
                    int64_t chunk);
  DocumentMarksLayout MarksOf(int64_t chunk) const;
  DocumentMarks UploadMarks(int64_t chunk);

  const ModelConfig config_;
  const MacroChunks chunks_;
  const MicroBatchShape shape_;
  LocalRank& rank_;
  const TestedPlan plan_;
  const ParameterLayout layout_;
  // The same, of what this rank has of the model.
  const ModelConfig own_config_;
  const ParameterLayout own_layout_;
  Arena arena_;
  std::unique_ptr<DataParallel> parallel_;
  Tensor loss_;
  TokenBatch tokens_;
  Tensor document_marks_;
  std::unique_ptr<SequenceParallel> attention_;
  ActivationMemory activations_;
  std::unique_ptr<TransNormer> model_;
  std::vector<double> whole_gradients_;  // where ranks have shares
};

// Tokens of some sequences and their labels, which are the tokens shifted by one.
struct RandomSequences {
  std::vector<int32_t> ids;
  std::vector<int32_t> labels;
};

RandomSequences MakeSequences(int64_t sequences, int64_t length, int64_t vocab_size, uint32_t seed);

}  // namespace lasp::worker
