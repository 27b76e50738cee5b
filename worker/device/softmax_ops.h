// What a layer of softmax attention is made of beside products (kernels/softmax_attention.h,
// kernels/rotary_positions.h).
#pragma once

#include <cstdint>

#include "worker/device/tensor.h"

namespace lasp::worker {

struct AttentionShape;

// Where documents are apart a query sees no key before the start of its own: a layer's shape has
// the marks of all tokens of its whole sequences (AttentionShape::document_marks), of which the
// first key is number first_key.
//
// q, output and their gradients: [batch * tokens, heads * head_size]. k and v: [batch * R, kv_heads
// * head_size], of whose R rows a sequence the first `keys` are taken.
struct SoftmaxForward {
  int64_t keys = 0;
  int64_t offset = 0;  // of the first query from the first key
  int64_t first_key = 0;
  Tensor q;
  Tensor k;
  Tensor v;
  bool merges = false;  // with the output and log-sum-exps of other keys, which are there
  Tensor output;
  Tensor log_sums;  // [batch * heads, tokens], of the accumulation type
  Tensor scratch;   // SoftmaxOps::ScratchElements; empty where that is 0
};

struct SoftmaxBackward {
  int64_t keys = 0;
  int64_t offset = 0;
  int64_t first_key = 0;
  Tensor q;
  Tensor k;
  Tensor v;
  Tensor output;  // over all keys, and so are the log-sum-exps
  Tensor log_sums;
  Tensor output_gradient;
  bool adds = false;  // to the gradient of q
  Tensor q_gradient;
  bool adds_to_keys = false;  // to the gradients of k and v, which then have `keys` rows a sequence
  Tensor k_gradient;          // as k; of the first `keys` rows of each sequence written
  Tensor v_gradient;
  Tensor scratch;  // as in the forward
};

// What a layer's operations are called with.
struct SoftmaxReach {
  int64_t keys = 0;     // at most, of which the last query sees all
  bool merges = false;  // and adds; then slices of keys that all queries see come, too
};

class SoftmaxOps {
 public:
  virtual ~SoftmaxOps() = default;

  // Turns each head of x [batch * tokens, n * head_size] by its token's position, or back, in
  // place.
  virtual void Turn(const AttentionShape& shape, double base, bool inverse, Tensor x) = 0;

  // What Output and Gradients need besides their operands, of the activation type.
  virtual int64_t ScratchElements(const AttentionShape& /*shape*/, const SoftmaxReach& /*reach*/) {
    return 0;
  }

  virtual void Output(const AttentionShape& shape, const SoftmaxForward& tensors) = 0;
  virtual void Gradients(const AttentionShape& shape, const SoftmaxBackward& tensors) = 0;
};

}  // namespace lasp::worker
