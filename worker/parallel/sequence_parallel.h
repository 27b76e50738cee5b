// How the ranks of an SP group compute one layer's attention over a sequence of which each holds a
// contiguous slice.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "worker/device/arena.h"
#include "worker/device/backend.h"
#include "worker/parallel/communicator.h"
#include "worker/parallel/document_marks.h"
#include "worker/parallel/sequence_slices.h"
#include "worker/parallel/softmax_parallel.h"
#include "worker/parallel/tensor_parallel.h"

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
  // q, k and v of the heads and tokens that this rank computes on, one after another, where those
  // are not the ones it is given; and its output and denominators of a normalised layer.
  Tensor whole_inputs;
  Tensor whole_output;
  Tensor whole_denominators;
  // Of a normalised layer, as the layer's caller has them: room for [batch * tokens, heads] of the
  // accumulation type, which a backward overwrites, and for the backward the output.
  Tensor denominators;
  Tensor output;
  // Where a sequence goes by in macro-chunks (CarriedStates); see StateCarrying for who has which.
  // Then the first rank has a state_in too, and so has every rank that has states of its own.
  // The state before the macro-chunk, for ranks other than the first.
  Tensor state_before;
  // The state behind it, written where it is given; and its gradient.
  Tensor state_out;
  Tensor state_gradient_in;
  // The gradient of the state before it, written where it is given. May be state_gradient_in.
  Tensor state_gradient_out;
};

// How a sequence that goes by in macro-chunks takes its states from one to the next.
enum class StateCarrying : uint8_t {
  kNone,  // it cannot
  // The last rank forms the state behind a macro-chunk, and the first has it before the next.
  // Backward the other way.
  kLastToFirst,
  // Every rank forms the state behind, and has the one before.
  kEverywhere,
  // Every rank has states of its own, those of its heads, and its state_in is before all tokens.
  kByHead,
};

class SequenceParallel {
 public:
  virtual ~SequenceParallel() = default;

  // Before memory is taken: the slices of sequences' last macro-chunk. In all others, and where
  // nothing is said, every rank has the tokens of the shape.
  virtual void ExpectAtEnd(const SequenceSlices& /*last*/) {}

  // What follows is of such slices; {}: every rank has the tokens of the shape it gives.
  virtual void UseSlices(const SequenceSlices& /*slices*/) {}

  // What follows has documents that start there, and its shapes have this rank's marks; {}: none
  // starts. Only methods that proto/spec lets pack documents are told of any.
  virtual void UseDocuments(const DocumentMarks& /*documents*/) {}

  // What this rank computes of a layer of `shape`: for the backend's workspace, and its states.
  virtual AttentionShape ComputedShape(const AttentionShape& shape) const { return shape; }

  // A layer's memory, and what all layers share; `shape` is the layer's, with the most tokens.
  virtual AttentionMemory TakeMemory(const AttentionShape& shape, Arena& arena) = 0;
  virtual void TakeScratch(const AttentionShape& widest, Arena& arena) = 0;

  // Of a layer's memory what Recompute writes anew, so that several layers may share it.
  virtual AttentionMemory TakeLocalMemory(const AttentionShape& shape, Arena& arena) {
    return TakeMemory(shape, arena);
  }

  // The rest, into `memory`: what a layer's forward receives, and Recompute reads.
  virtual void TakeReceivedMemory(const AttentionShape& /*shape*/, Arena& /*arena*/,
                                  AttentionMemory* /*memory*/) {}

  // Whether sequences can go by in macro-chunks, a state being all that one leaves to the next.
  // Then the layer's shape may have fewer tokens than its memory was taken for, or none, where
  // inputs and outputs are empty and the rank does what others need of it.
  virtual StateCarrying state_carrying() const { return StateCarrying::kNone; }

  // Starts a layer's forward: what other ranks need is on its way. The caller then issues what
  // needs no output of the layer, and ends the forward. Errors of the communicator.
  virtual absl::Status BeginForward(const AttentionShape& shape, const AttentionInputs& inputs,
                                    const AttentionMemory& memory) = 0;
  // output [batch * tokens, heads * head_size], written; empty: not wanted, nor then inputs.q.
  virtual absl::Status EndForward(const AttentionShape& shape, const AttentionInputs& inputs,
                                  const AttentionMemory& memory, Tensor output) = 0;

  // The forward once more, from the same inputs: leaves in `memory` and writes to `output` the same
  // bits. Needs no exchange where what was received is kept.
  virtual absl::Status Recompute(const AttentionShape& shape, const AttentionInputs& inputs,
                                 const AttentionMemory& memory, Tensor output) {
    absl::Status status = BeginForward(shape, inputs, memory);
    return status.ok() ? EndForward(shape, inputs, memory, output) : status;
  }

  // `memory` as the forward left it; the gradients of q, k and v are written. Overwrites
  // output_gradient where the layer is normalised.
  virtual absl::Status Backward(const AttentionShape& shape, const AttentionInputs& inputs,
                                const AttentionMemory& memory, Tensor output_gradient,
                                const AttentionGradients& gradients) = 0;
  // Waits until nothing is under way any more, of softmax() either.
  virtual absl::Status Finish() = 0;

  // Where the ranks share out heads and the MLP's columns for the whole layer, not for its
  // attention alone; otherwise null. Then the layer's shape is of this rank's heads and the tokens
  // of all ranks, and the caller takes its scratch, too.
  virtual TensorParallel* tensor_parallel() { return nullptr; }

  // How the same ranks compute layers of softmax attention; null: they do not.
  virtual SoftmaxParallel* softmax() { return nullptr; }
};

// LASP (arXiv 2404.02882) with the exchange under the computation: the state of the local tokens
// first; then receive, axpy and send run on the communicator while what the caller issues and the
// part of the output that needs no received state are computed; the rest comes last. Backward
// mirrors it, with the state cached from the forward. Both must outlive the result; `sp` is the SP
// group in sequence order.
std::unique_ptr<SequenceParallel> CreateLasp(Backend* backend, Communicator* sp);

// LASP-2 (arXiv 2502.07563) with decay: the same schedule around one all-gather of the local
// states. P - 1 times the bytes of LASP, and no hops in a row.
std::unique_ptr<SequenceParallel> CreateLasp2(Backend* backend, Communicator* sp);

// All-Scan (ZeCO, arXiv 2507.01004): the same schedule around a ring that takes the state in
// blocks, so that a long ring costs the time of few states. A message takes some 10 us whatever its
// size, and a block of the default size about as long over a link of 200 Gb/s.
inline constexpr int64_t kAllScanBlockBytes = int64_t{256} << 10;
std::unique_ptr<SequenceParallel> CreateAllScan(Backend* backend, Communicator* sp,
                                                int64_t block_bytes = kAllScanBlockBytes);

// DeepSpeed-Ulysses (arXiv 2309.14509): an all-to-all gives each rank all tokens of its share of
// the heads, for which it computes as one rank alone would; another gives back the outputs.
// Backward the same of the gradients. The heads are a multiple of the ranks; rank t has the t-th
// share.
std::unique_ptr<SequenceParallel> CreateUlysses(Backend* backend, Communicator* sp);

// Ring attention (arXiv 2310.01889) for linear layers, in the left-product form that LASP's paper
// compares with: keys and values go from rank to rank, and each rank forms ((Q K^T) (.) M) V with
// those of every rank before it. Backward they go round again, and their gradients home. The cost
// grows with the square of the length, and later ranks have more to do. Null where the backend has
// no left product.
std::unique_ptr<SequenceParallel> CreateRingAttention(Backend* backend, Communicator* sp);

// Megatron's tensor and sequence parallelism (arXiv 2205.05198): see TensorParallel. Attention, be
// it linear or softmax, is that of one rank alone, of its heads. Null where the backend has no
// split norm.
std::unique_ptr<SequenceParallel> CreateMegatronSp(Backend* backend, Communicator* sp);

}  // namespace lasp::worker
