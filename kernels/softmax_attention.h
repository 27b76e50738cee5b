// Causal softmax attention of a slice of queries over a slice of keys and values, with grouped
// queries (arXiv 2305.13245): head h of the queries has key and value head g = h kv_heads / heads.
//
//   s_ij = (q_i . k_j) / sqrt(head_size)             for keys j <= offset + i, the others unseen
//   L_i = log sum_j exp(s_ij),   o_i = sum_j exp(s_ij - L_i) v_j
//
// offset >= 0: the position of the first query less that of the first key, so every query sees the
// first key at least, and from keys - 1 on all see all. The log-sum-exp L lets what was computed of
// a slice of keys be merged with that of another, and lets a backward go slice by slice:
//
//   merging   L = log(exp(L_a) + exp(L_b)),   o = exp(L_a - L) o_a + exp(L_b - L) o_b
//   backward  p_ij = exp(s_ij - L_i),   D_i = do_i . o_i,   ds_ij = p_ij (do_i . v_j - D_i)
//             dv_j = sum p_ij do_i,   dq_i = sum ds_ij k_j / sqrt(head_size),
//             dk_j = sum ds_ij q_i / sqrt(head_size)     sums over the heads of a group, too
//
// with L and o over all slices of keys. Tiles keep the running maximum of each row (FlashAttention,
// arXiv 2205.14135): no [queries, keys] matrix exists, and no exponent is positive but by rounding.
//
// Where documents are apart, a query sees no key before the start of its own. It may then see none
// of a slice of keys, which changes nothing where it is merged with others; without merging each
// query must see a key.
//
// Pieces of queries (forward) and key heads (backward) run in parallel; results do not depend on
// the number of threads.
#pragma once

#include <cstdint>

#include "kernels/linear_attention.h"

namespace lasp::kernels {

struct SoftmaxAttentionShape {
  int64_t batch = 0;
  int64_t queries = 0;  // of each sequence
  int64_t keys = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;  // divides heads
  int64_t head_size = 0;
  int64_t offset = 0;

  bool operator==(const SoftmaxAttentionShape&) const = default;
};

// Where documents start among the tokens of whole sequences, of which queries and keys are parts.
struct SoftmaxDocuments {
  // [batch, words]: bit i of word w is token 64 w + i, set where a document starts. Null: none
  // does.
  const uint64_t* marks = nullptr;
  int64_t words = 0;
  int64_t first_key = 0;  // the first key's token
};

// q, output and their gradients: [batch, queries, heads, head_size]; k, v and theirs: [batch, keys,
// kv_heads, head_size].
template <typename T>
struct SoftmaxAttentionOutputArgs {
  SoftmaxAttentionShape shape;
  HeadsView<const T> q;
  HeadsView<const T> k;
  HeadsView<const T> v;
  // Whether `output` and `log_sums` hold those of other keys, with which these are merged.
  bool merges = false;
  HeadsView<T> output;    // o
  T* log_sums = nullptr;  // L: [batch, heads, queries]
  SoftmaxDocuments documents = {};
};

template <typename T>
struct SoftmaxAttentionGradientsArgs {
  SoftmaxAttentionShape shape;
  HeadsView<const T> q;
  HeadsView<const T> k;
  HeadsView<const T> v;
  HeadsView<const T> output;           // o, over all slices of keys
  const T* log_sums = nullptr;         // L likewise
  HeadsView<const T> output_gradient;  // do
  bool adds = false;                   // to the gradient of q
  HeadsView<T> q_gradient;
  bool adds_to_keys = false;  // to the gradients of k and v
  HeadsView<T> k_gradient;
  HeadsView<T> v_gradient;
  SoftmaxDocuments documents = {};
};

namespace cpu {

template <typename T>
void SoftmaxAttentionOutput(const SoftmaxAttentionOutputArgs<T>& args);

template <typename T>
void SoftmaxAttentionGradients(const SoftmaxAttentionGradientsArgs<T>& args);

}  // namespace cpu
}  // namespace lasp::kernels
