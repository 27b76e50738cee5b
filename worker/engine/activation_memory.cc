#include "worker/engine/activation_memory.h"

#include <vector>

#include "proto/rpc/status_macros.h"
#include "worker/model/layer_shapes.h"

namespace lasp::worker {

absl::StatusOr<ActivationMemory> ActivationMemory::Take(const Plan& plan, const ModelConfig& config,
                                                        const MicroBatchShape& shape,
                                                        Backend* backend,
                                                        const SequenceParallel& attention,
                                                        Communicator* wrap, Arena& arena) {
  ActivationMemory memory;
  const bool measures = arena.whole().empty();
  std::vector<AttentionShape> layers = LayerShapes::Geometry(config, shape);
  for (AttentionShape& layer : layers) {
    layer = attention.ComputedShape(layer);
  }
  int64_t slots = 0;
  int64_t slot_bytes = 0;
  if (plan.offloads) {
    slots = config.layers;
    slot_bytes = shape.rows() * config.hidden_size * SizeOf(backend->activation_type());
  } else if (plan.streams) {
    slots = plan.chunks - 1;
    slot_bytes = CarriedStates::SlotBytes(*backend, layers);
  }
  if (slots > 0 && !measures) {
    LASP_ASSIGN_OR_RETURN(memory.stash_, backend->CreateStash(slots, slot_bytes));
  }
  if (plan.streams) {
    memory.carried_ =
        std::make_unique<CarriedStates>(CarriedStates::Parts{.backend = backend,
                                                             .wrap = wrap,
                                                             .carrying = attention.state_carrying(),
                                                             .stash = memory.stash_.get(),
                                                             .chunks = plan.chunks},
                                        layers, arena);
  }
  memory.options_ = {.recomputation = plan.recomputation,
                     .offloads = plan.offloads,
                     .stash = memory.stash_.get(),
                     .streams = plan.streams,
                     .carried = memory.carried_.get()};
  return memory;
}

}  // namespace lasp::worker
