// What makes linear attention without decay (linear_attention.h, every slope 0) a mean of values:
// each output is divided by the sum of the weights that it was made with (arXiv 2006.16236,
// equation 12):
//
//   z_n = sum_{m<=n} k_m,   den_n = q_n . z_n + 1e-6,   o_n = num_n / den_n,   num_n = q_n S_n
//
// That is linear attention of values with a column of ones, [v, 1], whose state is [S, z]: z is
// kept as a vector of its own. A rank's slice has z_in, the sum of all keys before it, as it has
// KV_in:
//
//   forward   KeySum            z_loc = sum_i k_i;  z_out = z_in + z_loc             -> next rank
//             Normalise         den_i = q_i . (z_in + sum_{j<=i} k_j) + 1e-6,  o_i = num_i / den_i
//   backward  SplitGradient     dnum_i = do_i / den_i,  e_i = -(do_i . o_i) / den_i  (e = dden)
//             QuerySum          dz_loc = sum_i e_i q_i;  dz_out = dz_in + dz_loc -> previous rank
//             AddQueryGradients dq_i += e_i (z_in + sum_{j<=i} k_j)
//             AddKeyGradients   dk_j += dz_in + sum_{i>=j} e_i q_i
//
// with dz_in the gradient of the z behind the slice, and dnum the gradient that linear attention's
// own backward takes. No sum passes a document's start, as no state does. Running sums are fp64.
// Different (batch, head) pairs run in parallel; results do not depend on the number of threads.
#pragma once

#include <cstdint>

#include "kernels/linear_attention.h"

namespace lasp::kernels {

inline constexpr double kDenominatorEpsilon = 1e-6;

// A sum of rows of keys or queries, one a (batch, head): [batch, heads, key_size].
template <typename T>
struct KeySumArgs {
  LinearAttentionShape shape;
  HeadsView<const T> k;
  T* sum = nullptr;  // z_loc
};

template <typename T>
struct NormaliseArgs {
  LinearAttentionShape shape;
  HeadsView<const T> q;
  HeadsView<const T> k;
  const T* sum_in = nullptr;  // z_in; null: zeros
  HeadsView<T> output;        // num; o on return
  T* denominators = nullptr;  // den: [batch, tokens, heads], written
};

template <typename T>
struct SplitGradientArgs {
  LinearAttentionShape shape;
  HeadsView<const T> output;  // o
  HeadsView<T> gradient;      // do; dnum on return
  T* denominators = nullptr;  // den; e on return
};

template <typename T>
struct QuerySumArgs {
  LinearAttentionShape shape;
  HeadsView<const T> q;
  const T* denominator_gradient = nullptr;  // e: [batch, tokens, heads]
  T* sum = nullptr;                         // dz_loc
};

template <typename T>
struct NormaliserQueryGradientArgs {
  LinearAttentionShape shape;
  HeadsView<const T> k;
  const T* denominator_gradient = nullptr;
  const T* sum_in = nullptr;  // z_in; null: zeros
  HeadsView<T> q_gradient;    // added to
};

template <typename T>
struct NormaliserKeyGradientArgs {
  LinearAttentionShape shape;
  HeadsView<const T> q;  // data null: the keys are of another slice than the queries
  const T* denominator_gradient = nullptr;
  const T* sum_gradient_in = nullptr;  // dz_in; null: zeros
  HeadsView<T> k_gradient;             // added to
};

namespace cpu {

template <typename T>
void KeySum(const KeySumArgs<T>& args);

template <typename T>
void Normalise(const NormaliseArgs<T>& args);

template <typename T>
void SplitGradient(const SplitGradientArgs<T>& args);

template <typename T>
void QuerySum(const QuerySumArgs<T>& args);

template <typename T>
void AddQueryGradients(const NormaliserQueryGradientArgs<T>& args);

template <typename T>
void AddKeyGradients(const NormaliserKeyGradientArgs<T>& args);

}  // namespace cpu
}  // namespace lasp::kernels
