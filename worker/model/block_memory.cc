#include "worker/model/block_memory.h"

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace lasp::worker {
namespace {

class Taker {
 public:
  Taker(const ModelConfig& config, const MicroBatchShape& shape, const ActivationOptions& options,
        const LayerShapes& layers, const Backend& backend, SequenceParallel& attention,
        Arena& arena)
      : config_(config),
        rows_(shape.rows()),
        computed_rows_(layers.ComputedRows(shape.rows())),
        options_(options),
        layers_(layers),
        backend_(backend),
        attention_(attention),
        arena_(arena) {}

  // The activations of every block; tensors that are left out are the same in all.
  std::vector<BlockActivations> TakeBlocks() {
    const BlockActivations shared = TakeShared();
    std::vector<BlockActivations> blocks(static_cast<size_t>(config_.layers), shared);
    for (int64_t layer = 0; layer < config_.layers; ++layer) {
      BlockActivations& block = blocks[static_cast<size_t>(layer)];
      if (options_.offloads && layer >= 2) {
        block.mixer_input = blocks[static_cast<size_t>(layer - 2)].mixer_input;
      } else if (layer > 0) {
        // The one that is shared is the first block's.
        block.mixer_input = {};
      }
      const int64_t projection_size = config_.projection_size(layer);
      TakeMissing(!config_.softmax(layer), projection_size, &block);
      // Of one that is shared.
      block.qkvu = block.qkvu.Columns(0, projection_size);
      TakeAttention(layer, &block);
    }
    return blocks;
  }

 private:
  Tensor Take(int64_t rows, int64_t columns) {
    return arena_.Take(MemoryUse::kActivations, backend_.activation_type(), rows, columns);
  }

  // What all blocks have one place for.
  BlockActivations TakeShared() {
    const bool linear = config_.has_linear();
    BlockActivations shared;
    if (options_.recomputation == Recomputation::kBlock) {
      TakeMissing(linear, config_.widest_projection(), &shared);
      if (linear) {
        shared.attention =
            attention_.TakeLocalMemory(layers_.Widest(config_.first_linear()), arena_);
      }
      if (config_.has_softmax()) {
        shared.softmax =
            attention_.softmax()->TakeMemory(layers_.Widest(config_.first_softmax()), arena_);
      }
    } else if (options_.recomputation == Recomputation::kCheapest) {
      const int64_t hidden = config_.hidden_size;
      shared.mixer_normed = Take(rows_, hidden);
      if (linear) {
        shared.qk = Take(computed_rows_, 2 * config_.own_width());
      }
      if (linear && !config_.linear_transformer) {
        shared.gated = Take(computed_rows_, config_.own_width());
      }
      shared.channel_normed = Take(rows_, hidden);
    }
    return shared;
  }

  // What attention keeps of a layer, but for what is shared.
  void TakeAttention(int64_t layer, BlockActivations* block) {
    const AttentionShape& shape = layers_.Widest(layer);
    const bool shares = options_.recomputation == Recomputation::kBlock;
    if (config_.softmax(layer)) {
      if (!shares) {
        block->softmax = attention_.softmax()->TakeMemory(shape, arena_);
      }
    } else if (shares) {
      attention_.TakeReceivedMemory(shape, arena_, &block->attention);
    } else if (options_.streams) {
      block->attention = attention_.TakeLocalMemory(shape, arena_);
    } else {
      block->attention = attention_.TakeMemory(shape, arena_);
    }
  }

  // Takes what `block` does not have yet, but for attention's memory; `linear`: whether it serves a
  // layer of linear attention.
  void TakeMissing(bool linear, int64_t projection_size, BlockActivations* block) {
    const auto take = [&](int64_t rows, int64_t columns, Tensor* tensor) {
      // Not taken yet: while memory is only measured what has been taken is empty, too.
      if (tensor->rows == 0) {
        *tensor = Take(rows, columns);
      }
    };
    const auto take_exact = [&](int64_t rows, int64_t columns, Tensor* tensor) {
      if (tensor->rows == 0) {
        *tensor = arena_.Take(MemoryUse::kActivations, backend_.accumulation_type(), rows, columns);
      }
    };
    const int64_t hidden = config_.hidden_size;
    const int64_t width = config_.own_width();
    take(rows_, hidden, &block->mixer_input);
    take_exact(rows_, 1, &block->mixer_inverse_rms);
    take(rows_, hidden, &block->mixer_normed);
    take(computed_rows_, projection_size, &block->qkvu);
    if (linear) {
      take(computed_rows_, 2 * width, &block->qk);
    }
    take(computed_rows_, width, &block->attention_output);
    if (linear && config_.linear_transformer) {
      take_exact(computed_rows_, config_.own_heads(), &block->denominators);
    } else if (linear) {
      take_exact(computed_rows_, 1, &block->attention_inverse_rms);
      take(computed_rows_, width, &block->gated);
    }
    take(rows_, hidden, &block->channel_input);
    take_exact(rows_, 1, &block->channel_inverse_rms);
    take(rows_, hidden, &block->channel_normed);
    take(computed_rows_, 2 * config_.own_glu_size(), &block->l1_l2);
  }

  const ModelConfig& config_;
  const int64_t rows_;
  const int64_t computed_rows_;
  const ActivationOptions& options_;
  const LayerShapes& layers_;
  const Backend& backend_;
  SequenceParallel& attention_;
  Arena& arena_;
};

}  // namespace

std::unique_ptr<ActivationPlan> TakeActivations(const ModelConfig& config,
                                                const MicroBatchShape& shape,
                                                const ActivationOptions& options,
                                                const LayerShapes& layers, const Backend& backend,
                                                SequenceParallel& attention, Arena& arena) {
  std::vector<BlockActivations> blocks =
      Taker(config, shape, options, layers, backend, attention, arena).TakeBlocks();
  return options.offloads ? CreateOffloadPlan(std::move(blocks), options.stash)
                          : CreateKeepPlan(std::move(blocks), options.recomputation);
}

}  // namespace lasp::worker
