// What a run keeps from forward to backward, beyond what the model takes itself: states between
// macro-chunks, and the host's memory.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "worker/device/arena.h"
#include "worker/device/backend.h"
#include "worker/device/host_stash.h"
#include "worker/model/activation_plan.h"
#include "worker/model/block_memory.h"
#include "worker/model/model_config.h"
#include "worker/parallel/carried_states.h"
#include "worker/parallel/communicator.h"
#include "worker/parallel/sequence_parallel.h"

namespace lasp::worker {

class ActivationMemory {
 public:
  struct Plan {
    Recomputation recomputation = Recomputation::kNothing;
    bool offloads = false;
    bool streams = false;
    int64_t chunks = 1;
  };

  // Takes it; host memory only where `arena` does not measure. `backend`, and where the plan
  // streams `wrap`, must outlive this; `attention` says who carries which states.
  // RESOURCE_EXHAUSTED names the size.
  static absl::StatusOr<ActivationMemory> Take(const Plan& plan, const ModelConfig& config,
                                               const MicroBatchShape& shape, Backend* backend,
                                               const SequenceParallel& attention,
                                               Communicator* wrap, Arena& arena);

  // For the model, which must not outlive this.
  const ActivationOptions& options() const { return options_; }

  // Null unless the plan streams.
  CarriedStates* carried() const { return carried_.get(); }

 private:
  ActivationOptions options_;
  std::unique_ptr<HostStash> stash_;
  std::unique_ptr<CarriedStates> carried_;
};

}  // namespace lasp::worker
