// How the states of each rank's own tokens become, on every rank, the state before its tokens: what
// LASP and its successors differ in.
#pragma once

#include <cstdint>
#include <memory>

#include "worker/device/arena.h"
#include "worker/device/backend.h"
#include "worker/parallel/communicator.h"
#include "worker/parallel/document_marks.h"
#include "worker/parallel/sequence_slices.h"

namespace lasp::worker {

// One layer's. With C tokens a rank and lambda^C moving a state over them:
//   in(0) = 0 or what is given,  in(p) = lambda^C in(p - 1) + local(p - 1)
// with 0 for lambda^C where a document starts among the tokens of p - 1.
// p: the rank, in the forward pass; in the backward pass, where the gradients of states go from the
// last rank to the first, the rank counted from the end.
struct StateFlow {
  bool gradient = false;
  SequenceSlices slices;
  DocumentMarks documents;
  Tensor local;     // Local(shape), which this rank has written
  Tensor in;        // written, but on the first rank of the flow: in(0) there, or empty
  Tensor in_place;  // where every other rank has its `in`, in this rank's memory
  Tensor before;    // in(0), for ranks other than the first that need it; or empty
};

struct StateFlowEnds {
  Operation received;  // `in` is there
  Operation read;      // `local` may be written again
  Operation sent;      // nothing is under way any more
};

// Every rank of the group starts the same flows in the same order. All that Start issues runs on
// the communicator, beside the caller.
class StatePassing {
 public:
  virtual ~StatePassing() = default;

  // What all layers share; `widest` has the largest states.
  virtual void TakeScratch(const AttentionShape& widest, Arena& arena) = 0;
  // Where a rank's own state is to be written, once the flow before has read it.
  virtual Tensor Local(const AttentionShape& shape) const = 0;
  virtual StateFlowEnds Start(const AttentionShape& shape, const StateFlow& flow) = 0;
  // in(P) of the flow that was started last, once `in` and `local` have been received and read:
  // the last rank of the flow forms it, and with the gather passing every rank. Issued by the
  // caller. `out` may be what the flow began with.
  virtual void FormOut(const AttentionShape& shape, const StateFlow& flow, Tensor out) = 0;
};

// The order in which a flow visits the ranks of a group.
class FlowOrder {
 public:
  FlowOrder(const Communicator& group, bool gradient)
      : rank_(group.rank()), size_(group.size()), step_(gradient ? -1 : 1) {}

  // Of this rank, and of any: from 0.
  int place() const { return step_ > 0 ? rank_ : size_ - 1 - rank_; }

  int RankAt(int place) const { return step_ > 0 ? place : size_ - 1 - place; }

  bool first() const { return place() == 0; }

  bool last() const { return place() == size_ - 1; }

  int previous() const { return rank_ - step_; }

  int next() const { return rank_ + step_; }

 private:
  int rank_;
  int size_;
  int step_;
};

// in * lambda^C + local, of states or of their gradients; a rank without tokens passes on `in`.
inline void Hop(Backend& backend, bool gradient, const AttentionShape& shape, Tensor in,
                Tensor local, Tensor out) {
  if (shape.tokens == 0) {
    if (in.data != out.data) {
      backend.Convert(in, out);
    }
  } else if (gradient) {
    backend.StateGradientHop(shape, in, local, out);
  } else {
    backend.StateHop(shape, in, local, out);
  }
}

// From rank to rank: receive, hop, send. One state a rank and layer, P - 1 hops in a row.
std::unique_ptr<StatePassing> CreateRingPassing(Backend* backend, Communicator* group);

// One all-gather of all local states, of which each rank sums up those before it. P - 1 states a
// rank and layer, in one step.
std::unique_ptr<StatePassing> CreateGatherPassing(Backend* backend, Communicator* group);

// The ring in blocks of about `block_bytes` (whole heads): a block goes on while the next comes.
// One state a rank and layer, and the time of P - 1 hops of a block more than that of one state.
std::unique_ptr<StatePassing> CreateScanPassing(Backend* backend, Communicator* group,
                                                int64_t block_bytes);

}  // namespace lasp::worker
