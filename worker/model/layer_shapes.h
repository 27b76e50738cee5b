// What attention is told of each layer: its geometry, its decays and frequencies, and the batch at
// hand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "worker/device/arena.h"
#include "worker/device/backend.h"
#include "worker/model/model_config.h"
#include "worker/model/token_batch.h"
#include "worker/parallel/document_marks.h"
#include "worker/parallel/sequence_parallel.h"
#include "worker/parallel/sequence_slices.h"

namespace lasp::worker {

// Not thread-safe.
class LayerShapes {
 public:
  // Takes the memory of decays and frequencies from `arena`, and fills it unless that measures.
  LayerShapes(const ModelConfig& config, const MicroBatchShape& shape, Backend* backend,
              Arena& arena);

  // Geometry alone, of every layer with the most tokens.
  static std::vector<AttentionShape> Geometry(const ModelConfig& config,
                                              const MicroBatchShape& shape);

  // What follows is of this batch.
  void UseBatch(const TokenBatch& batch);

  // With the most tokens.
  const AttentionShape& Widest(int64_t layer) const { return widest_[static_cast<size_t>(layer)]; }

  // Where this rank has so many rows of the residual stream.
  AttentionShape Of(int64_t layer, int64_t rows) const;

  // The rows that a layer computes, where this rank has so many of the residual stream: with tensor
  // parallelism those of all ranks.
  int64_t ComputedRows(int64_t rows) const {
    return config_.tensor_ranks == 1 ? rows : shape_.sequences * SlicesOf(rows).total;
  }

  // The rotary frequencies, kFloat64 [own heads, head_size].
  Tensor theta() const { return theta_; }

  // The workspace that the backend wants, for all sizes that may come.
  int64_t WorkspaceBytes(const Backend& backend, SequenceParallel& attention) const;

 private:
  void FillConstants(Backend& backend);

  SequenceSlices SlicesOf(int64_t rows) const {
    return slices_.OrEven(rows / shape_.sequences, config_.tensor_ranks);
  }

  // Where this rank's tokens begin among those that a layer computes.
  int64_t FirstToken(int64_t rows) const {
    return config_.tensor_ranks == 1 ? 0 : SlicesOf(rows).Begin(config_.tensor_rank);
  }

  const ModelConfig config_;
  const MicroBatchShape shape_;
  std::vector<AttentionShape> widest_;
  Tensor theta_;
  // Of the batch at hand.
  SequenceSlices slices_;
  int64_t first_position_ = 0;
  DocumentMarks documents_;
};

}  // namespace lasp::worker
