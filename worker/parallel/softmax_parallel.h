// How the ranks of an SP group compute one layer's softmax attention over a sequence of which each
// holds a contiguous slice, all of one length. A layer's shape has kv_heads (AttentionShape), and
// the marks of documents that start in the whole sequences, on a backend that keeps them apart.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "worker/device/arena.h"
#include "worker/device/backend.h"
#include "worker/parallel/communicator.h"

namespace lasp::worker {

// Turned by their positions: queries [batch * tokens, heads * head_size]; keys and values of each
// token side by side, [batch * tokens, 2 * kv_heads * head_size]. Gradients likewise.
struct SoftmaxInputs {
  Tensor q;
  Tensor kv;
};

// What one layer's forward leaves for its backward, beside its inputs and its output.
struct SoftmaxMemory {
  Tensor log_sums;  // of the heads and queries that this rank computes, as the method lays them
  // Where a rank computes other heads of all tokens than it is given, [whole tokens, its heads]; or
  // other tokens, in the order of worker/parallel/zigzag_exchange.h, whose keys and values lie side
  // by side.
  Tensor moved_q;
  Tensor moved_k;
  Tensor moved_v;
  Tensor moved_kv;
  Tensor moved_output;
};

// What begins is ended before anything else begins. Errors are those of the communicator. Not
// thread-safe.
class SoftmaxParallel {
 public:
  virtual ~SoftmaxParallel() = default;

  // All of it a repeated forward writes anew, in the same bits: layers that are computed again may
  // share it.
  virtual SoftmaxMemory TakeMemory(const AttentionShape& shape, Arena& arena) = 0;
  // What all layers share.
  virtual void TakeScratch(const AttentionShape& shape, Arena& arena) = 0;

  // Starts a layer's forward: keys and values are on their way. The caller then forms the queries.
  virtual absl::Status BeginForward(const AttentionShape& shape, Tensor kv,
                                    const SoftmaxMemory& memory) = 0;
  // Writes output [batch * tokens, heads * head_size].
  virtual absl::Status EndForward(const AttentionShape& shape, const SoftmaxInputs& inputs,
                                  const SoftmaxMemory& memory, Tensor output) = 0;

  // Starts a layer's backward. The caller then forms the output's gradient.
  virtual absl::Status BeginBackward(const AttentionShape& shape, Tensor kv,
                                     const SoftmaxMemory& memory) = 0;
  // `memory` and `output` as the forward left them; the gradients of q and kv are written.
  virtual absl::Status EndBackward(const AttentionShape& shape, const SoftmaxInputs& inputs,
                                   const SoftmaxMemory& memory, Tensor output,
                                   Tensor output_gradient, const SoftmaxInputs& gradients) = 0;

  // Waits until nothing is under way any more.
  virtual absl::Status Finish() { return absl::OkStatus(); }
};

// Null where the backend does not compute softmax attention. The other arguments must outlive the
// result.
//
// LASP-2H (arXiv 2502.07563, section 3.4): all ranks gather all keys and values, of which each
// rank's queries see those up to their own, and the gradients are scattered as sums. They are
// gathered again in the backward, so that what all layers share is all that is ever held whole. A
// later rank has more to compute.
std::unique_ptr<SoftmaxParallel> CreateGatheredSoftmax(Backend* backend, Communicator* sp);

// DeepSpeed-Ulysses (arXiv 2309.14509): an all-to-all gives each rank all tokens of its share of
// the heads, for which it computes as one rank alone would. The heads of keys and values, and so
// those of queries, are a multiple of the ranks.
std::unique_ptr<SoftmaxParallel> CreateUlyssesSoftmax(Backend* backend, Communicator* sp);

// Ring attention (arXiv 2310.01889): keys and values go from rank to rank, and each rank merges
// what its queries see of those of every other. Backward they go round again, and their gradients
// home. Causal attention to contiguous slices would leave the last rank P blocks to compute and the
// first one; so halves of the slices change places before, and what comes of them after it: a
// zigzag (worker/parallel/zigzag_exchange.h), in which each rank computes P / 2. Slices are of even
// length.
std::unique_ptr<SoftmaxParallel> CreateRingSoftmax(Backend* backend, Communicator* sp);

}  // namespace lasp::worker
