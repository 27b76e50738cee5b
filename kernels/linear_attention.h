// Causal linear attention with one decay a head, cut into the parts that LASP overlaps.
//
//   S_n = lambda S_{n-1} + k_n^T v_n,   o_n = q_n S_n,   lambda = exp(-slope), slope >= 0
//
// A rank holds a slice of C tokens. With KV_in the state before its first token (zeros on the first
// rank) and dKV_in the gradient of the state after its last token (zeros on the last rank):
//
//   forward   LocalState                 KV_loc = sum_i lambda^{C-1-i} k_i^T v_i
//             StateHop                   KV_out = lambda^C KV_in + KV_loc         -> next rank
//             IntraOutput                o_i = sum_{j<=i} lambda^{i-j} (q_i . k_j) v_j
//             AddInterOutput             o_i += lambda^{i+1} q_i KV_in
//   backward  LocalStateGradient         dKV_loc = sum_i lambda^{i+1} q_i^T do_i
//             StateGradientHop           dKV_out = lambda^C dKV_in + dKV_loc      -> previous rank
//             IntraGradients             dq, dk, dv of IntraOutput
//             AddInterQueryGradients     dq_i += lambda^{i+1} do_i KV_in^T
//             AddInterKeyValueGradients  dk_i += lambda^{C-1-i} v_i dKV_in^T, dv_i +=
//             lambda^{C-1-i} k_i dKV_in
//
// (LASP, arXiv 2404.02882, algorithms 2 and 3: the state after the last token is the recurrent
// state.) No exponent is positive and no inverse power of lambda is formed. Work inside a slice
// goes in blocks of kLinearAttentionBlock tokens; a slice may have any length. The states are of
// type T; what carries them from block to block is computed in fp64, so that rounding does not
// drift with the length.
//
// With theta (lrpe.h) keys and queries are doubled inside the kernels and states have 2 * key_size
// rows. A state's origin is at the token that follows it (a gradient's likewise: dKV_in at the
// token after the slice, dKV_loc and dKV_out at the slice's first token). The gradient of theta is
// formed by distances, never by positions; each call adds its part, and the sum over the calls of
// all ranks is the gradient.
//
// With document_marks a sequence is several documents, and each is computed as if it were alone: no
// state passes a document's start. KV_in reaches the tokens before the first start of the slice,
// dKV_in those from the last start on; KV_loc is of the tokens from the last start on, dKV_loc of
// those before the first one; and where a document starts a hop's lambda^C is 0.
//
// All functions write their outputs whole unless "added to" is said. Different (batch, head) pairs
// run in parallel; results do not depend on the number of threads.
#pragma once

#include <cstdint>
#include <type_traits>

namespace lasp::kernels {

inline constexpr int64_t kLinearAttentionBlock = 64;

// A [batch, tokens, heads, width] view whose width is contiguous. Strides are in elements. A part
// of the packed projection [batch, tokens, 4 * D] at column c is {packed + c, tokens * 4 * D, 4 *
// D, width}.
template <typename T>
struct HeadsView {
  T* data = nullptr;
  int64_t batch_stride = 0;
  int64_t token_stride = 0;
  int64_t head_stride = 0;

  // As T* converts to const T*.
  template <typename U>
    requires(std::is_same_v<U, const T> && !std::is_const_v<T>)
  operator HeadsView<U>() const {  // NOLINT(google-explicit-constructor)
    return {data, batch_stride, token_stride, head_stride};
  }
};

struct LinearAttentionShape {
  int64_t batch = 0;
  int64_t tokens = 0;  // C, of this rank's slice
  int64_t heads = 0;
  int64_t key_size = 0;            // of q and k as given, before LRPE doubles it
  int64_t value_size = 0;          // of v and o
  const double* slopes = nullptr;  // [heads]
  const double* theta = nullptr;   // [heads, key_size], radians a token; null: no LRPE
  // [batch, BlockCount]: bit i of a word is token i of its block, set where a document starts.
  // Null: none starts in the slice. On a GPU the products take LinearAttentionProblem's.
  const uint64_t* document_marks = nullptr;
};

inline int64_t StateRows(const LinearAttentionShape& shape) {
  return shape.theta == nullptr ? shape.key_size : 2 * shape.key_size;
}

// Elements of a state [batch, heads, StateRows, value_size].
inline int64_t StateElements(const LinearAttentionShape& shape) {
  return shape.batch * shape.heads * StateRows(shape) * shape.value_size;
}

inline int64_t BlockCount(const LinearAttentionShape& shape) {
  return (shape.tokens + kLinearAttentionBlock - 1) / kLinearAttentionBlock;
}

// Elements of the states at the blocks' borders [batch, heads, BlockCount, StateRows, value_size].
inline int64_t BlockStateElements(const LinearAttentionShape& shape) {
  return StateElements(shape) * BlockCount(shape);
}

template <typename T>
struct LocalStateArgs {
  LinearAttentionShape shape;
  HeadsView<const T> k;
  HeadsView<const T> v;
  T* state = nullptr;  // KV_loc: [batch, heads, StateRows, value_size]
  T* block_states =
      nullptr;  // BlockStateElements: the local state before each block; null: not kept
};

template <typename T>
struct IntraOutputArgs {
  LinearAttentionShape shape;
  HeadsView<const T> q;
  HeadsView<const T> k;
  HeadsView<const T> v;
  const T* block_states = nullptr;  // from LocalState
  HeadsView<T> output;              // o
};

template <typename T>
struct AddInterOutputArgs {
  LinearAttentionShape shape;
  HeadsView<const T> q;
  const T* state_in = nullptr;  // KV_in
  HeadsView<T> output;          // o, added to
};

template <typename T>
struct LocalStateGradientArgs {
  LinearAttentionShape shape;
  HeadsView<const T> q;
  HeadsView<const T> output_gradient;  // do
  T* state_gradient = nullptr;         // dKV_loc: [batch, heads, StateRows, value_size]
  // BlockStateElements: the gradient of the local state after each block, as IntraGradients wants
  // it (with LRPE, its origin at the block's first token); null: not kept.
  T* block_state_gradients = nullptr;
};

template <typename T>
struct IntraGradientsArgs {
  LinearAttentionShape shape;
  HeadsView<const T> q;
  HeadsView<const T> k;
  HeadsView<const T> v;
  HeadsView<const T> output_gradient;        // do
  const T* block_states = nullptr;           // from LocalState
  const T* block_state_gradients = nullptr;  // from LocalStateGradient
  HeadsView<T> q_gradient;
  HeadsView<T> k_gradient;
  HeadsView<T> v_gradient;
  T* theta_gradient = nullptr;  // [heads, key_size], added to; null: theta is fixed
};

template <typename T>
struct AddInterQueryGradientsArgs {
  LinearAttentionShape shape;
  HeadsView<const T> q;  // read only for theta's gradient
  HeadsView<const T> output_gradient;
  const T* state_in = nullptr;  // KV_in, as in the forward
  HeadsView<T> q_gradient;      // added to
  T* theta_gradient = nullptr;  // added to; null: theta is fixed
};

template <typename T>
struct AddInterKeyValueGradientsArgs {
  LinearAttentionShape shape;
  HeadsView<const T> k;
  HeadsView<const T> v;
  const T* state_gradient_in = nullptr;  // dKV_in
  HeadsView<T> k_gradient;               // added to
  HeadsView<T> v_gradient;               // added to
  // KV_in, read only for theta's gradient (states that cross the whole slice); null on the first
  // rank.
  const T* state_in = nullptr;
  T* theta_gradient = nullptr;  // added to; null: theta is fixed
};

template <typename T>
struct StateHopArgs {
  LinearAttentionShape shape;
  const T* state_in = nullptr;  // KV_in or dKV_in; null: zeros
  const T* local = nullptr;     // KV_loc or dKV_loc
  T* state_out = nullptr;       // KV_out or dKV_out; may be `state_in` or `local`
};

namespace cpu {

template <typename T>
void LocalState(const LocalStateArgs<T>& args);

template <typename T>
void StateHop(const StateHopArgs<T>& args);

template <typename T>
void IntraOutput(const IntraOutputArgs<T>& args);

template <typename T>
void AddInterOutput(const AddInterOutputArgs<T>& args);

template <typename T>
void LocalStateGradient(const LocalStateGradientArgs<T>& args);

template <typename T>
void StateGradientHop(const StateHopArgs<T>& args);

template <typename T>
void IntraGradients(const IntraGradientsArgs<T>& args);

template <typename T>
void AddInterQueryGradients(const AddInterQueryGradientsArgs<T>& args);

template <typename T>
void AddInterKeyValueGradients(const AddInterKeyValueGradientsArgs<T>& args);

}  // namespace cpu
}  // namespace lasp::kernels
