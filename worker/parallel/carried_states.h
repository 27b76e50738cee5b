// What a sequence that goes by in macro-chunks leaves from one to the next: forward the state of
// each layer behind the last rank's slice, which is the state before the first rank's next slice;
// backward its gradient, the other way. One message takes it there, unless the ranks that want it
// form it themselves (StateCarrying). And what the ranks keep of the way forward: each layer's
// KV_in, in the host's memory.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "worker/device/arena.h"
#include "worker/device/backend.h"
#include "worker/device/host_stash.h"
#include "worker/parallel/communicator.h"
#include "worker/parallel/sequence_parallel.h"

namespace lasp::worker {

// For one micro-batch at a time: Begin, the forward of macro-chunk 0, Advance, the forward of the
// next, ..., TurnAround behind the last one's forward, its backward, Retreat, the next one's, ...
// All ranks of the SP group make the same calls. Not thread-safe.
class CarriedStates {
 public:
  // All outlive this.
  struct Parts {
    Backend* backend = nullptr;
    // The SP group, with no other operations on it.
    Communicator* wrap = nullptr;
    // Not kNone.
    StateCarrying carrying = StateCarrying::kLastToFirst;
    // `chunks` - 1 slots of slot_bytes(); null while memory is measured, or where there is but one.
    HostStash* stash = nullptr;
    int64_t chunks = 1;
  };

  // Memory for layers of these shapes, as this rank computes them.
  CarriedStates(const Parts& parts, const std::vector<AttentionShape>& layers, Arena& arena);

  // Of a stash's slot.
  static int64_t SlotBytes(const Backend& backend, const std::vector<AttentionShape>& layers);

  // The layer's part of `memory`, for the macro-chunk at hand.
  void PutInto(int64_t layer, AttentionMemory* memory) const;

  // Before macro-chunk 0.
  void Begin();
  // From the macro-chunk at hand, whose forward has been issued, to the next. `keeps` its KV_in for
  // a Retreat.
  absl::Status Advance(bool keeps);
  // Between forward and backward of the last.
  void TurnAround();
  // From the macro-chunk at hand, whose backward has been issued, to the one before.
  absl::Status Retreat();

 private:
  bool first() const { return parts_.wrap->rank() == 0; }

  bool last() const { return parts_.wrap->rank() == parts_.wrap->size() - 1; }

  // Whether states go from the last rank to the first; alone, a rank is both.
  bool wraps() const {
    return parts_.carrying == StateCarrying::kLastToFirst && parts_.wrap->size() > 1;
  }

  // Whether KV_in of this rank is the state before the macro-chunk.
  bool begins() const { return first() || parts_.carrying == StateCarrying::kByHead; }

  // Whether this rank forms the state behind the macro-chunk, and the gradient of the one before.
  bool forms_state() const { return last() || !wraps(); }

  bool forms_gradient() const { return first() || !wraps(); }

  // KV_in of all layers in macro-chunk `chunk`. Two take turns.
  Tensor StatesIn(int64_t chunk) const { return states_in_[chunk % 2]; }

  Tensor LayerOf(int64_t layer, Tensor all) const;
  absl::Status WaitFor(Operation operation);

  const Parts parts_;
  // The first row of each layer's states, and behind the last.
  std::vector<int64_t> rows_;
  Tensor states_in_[2];
  // On ranks that form them, forward the states to hand on, and where every rank has them those
  // before the macro-chunk until then; backward their gradients likewise.
  Tensor carried_;
  int64_t chunk_ = 0;
};

}  // namespace lasp::worker
