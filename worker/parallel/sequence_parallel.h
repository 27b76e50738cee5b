// How the ranks of an SP group compute one layer's attention over a sequence of which each holds a
// contiguous slice.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "worker/device/arena.h"
#include "worker/device/backend.h"
#include "worker/parallel/communicator.h"

namespace lasp::worker {

// Activated queries and keys, and values: [batch * tokens, heads * head_size] each.
struct AttentionInputs {
  Tensor q;
  Tensor k;
  Tensor v;
};

struct AttentionGradients {
  Tensor q;
  Tensor k;
  Tensor v;
  Tensor theta;  // [heads, head_size], added to; empty: not wanted
};

// What one layer's forward leaves for its backward.
struct AttentionMemory {
  Tensor saved_states;  // as Backend::LocalState leaves them
  Tensor state_in;      // KV_in, the state before this rank's first token; empty on the first rank
  // Where every rank but the first has its state_in, in this rank's memory; empty where one is
  // alone.
  Tensor state_in_place;
};

class SequenceParallel {
 public:
  virtual ~SequenceParallel() = default;

  // A layer's memory, and what all layers share; `shape` is the layer's.
  virtual AttentionMemory TakeMemory(const AttentionShape& shape, Arena& arena) = 0;
  virtual void TakeScratch(const AttentionShape& widest, Arena& arena) = 0;

  // Starts a layer's forward: what other ranks need is on its way. The caller then issues what
  // needs no output of the layer, and ends the forward. Errors of the communicator.
  virtual absl::Status BeginForward(const AttentionShape& shape, const AttentionInputs& inputs,
                                    const AttentionMemory& memory) = 0;
  // output [batch * tokens, heads * head_size], written.
  virtual absl::Status EndForward(const AttentionShape& shape, const AttentionInputs& inputs,
                                  const AttentionMemory& memory, Tensor output) = 0;
  // `memory` as the forward left it; the gradients of q, k and v are written.
  virtual absl::Status Backward(const AttentionShape& shape, const AttentionInputs& inputs,
                                const AttentionMemory& memory, Tensor output_gradient,
                                const AttentionGradients& gradients) = 0;
  // Waits until nothing is under way any more.
  virtual absl::Status Finish() = 0;
};

// LASP (arXiv 2404.02882) with the exchange under the computation: the state of the local tokens
// first; then receive, axpy and send run on the communicator while what the caller issues and the
// part of the output that needs no received state are computed; the rest comes last. Backward
// mirrors it, with the state cached from the forward. Both must outlive the result; `sp` is the SP
// group in sequence order.
std::unique_ptr<SequenceParallel> CreateLasp(Backend* backend, Communicator* sp);

}  // namespace lasp::worker
