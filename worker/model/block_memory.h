// Takes the memory of what the forward pass leaves for the backward pass, block by block.
#pragma once

#include <memory>

#include "worker/device/arena.h"
#include "worker/device/backend.h"
#include "worker/device/host_stash.h"
#include "worker/model/activation_plan.h"
#include "worker/model/layer_shapes.h"
#include "worker/model/model_config.h"
#include "worker/parallel/carried_states.h"
#include "worker/parallel/sequence_parallel.h"

namespace lasp::worker {

// What is kept from forward to backward, and where. The pointers are null while memory is measured,
// and outlive the model.
struct ActivationOptions {
  Recomputation recomputation = Recomputation::kNothing;
  // Blocks' inputs go to the host's memory; with kBlock.
  bool offloads = false;
  // Then one slot a layer, each of a block's input.
  HostStash* stash = nullptr;
  // The batches are macro-chunks of their sequences; with kNothing.
  bool streams = false;
  // Then, for the layers' shapes.
  CarriedStates* carried = nullptr;
};

// For the blocks of a model of `config`, which has at most `shape` at a time. Attention's memory is
// as `attention` wants it.
std::unique_ptr<ActivationPlan> TakeActivations(const ModelConfig& config,
                                                const MicroBatchShape& shape,
                                                const ActivationOptions& options,
                                                const LayerShapes& layers, const Backend& backend,
                                                SequenceParallel& attention, Arena& arena);

}  // namespace lasp::worker
