// Causal linear attention by the left product, for a slice of queries against a slice of keys and
// values that lies `distance` tokens before them:
//
//   o_i = sum_j lambda^{D + i - j} (q_i . k_j) v_j  over all j <= D + i
//
// D = distance, from the first key to the first query: 0 for the queries' own slice, otherwise at
// least the slice's length. Summed over all slices up to a rank's own this is linear_attention.h's
// output, at a cost that grows with the square of the length: what ring attention pays for linear
// layers, where no state is formed.
//
// With theta (lrpe.h) keys and queries are doubled inside the kernel. Angles are of positions
// within blocks of kLinearAttentionBlock tokens and of distances between such blocks, in fp64;
// theta's gradient is formed by distances, none of them negative.
//
// Different (batch, head) pairs run in parallel; results do not depend on the number of threads.
#pragma once

#include <cstdint>

#include "kernels/linear_attention.h"

namespace lasp::kernels {

template <typename T>
struct LeftProductOutputArgs {
  LinearAttentionShape shape;
  int64_t distance = 0;
  HeadsView<const T> q;
  HeadsView<const T> k;
  HeadsView<const T> v;
  bool adds = false;    // to the output
  HeadsView<T> output;  // o
};

template <typename T>
struct LeftProductGradientsArgs {
  LinearAttentionShape shape;
  int64_t distance = 0;
  HeadsView<const T> q;
  HeadsView<const T> k;
  HeadsView<const T> v;
  HeadsView<const T> output_gradient;  // do
  bool adds = false;                   // to the gradient of q
  HeadsView<T> q_gradient;
  HeadsView<T> k_gradient;      // written
  HeadsView<T> v_gradient;      // written
  T* theta_gradient = nullptr;  // [heads, key_size], added to; null: theta is fixed
};

namespace cpu {

template <typename T>
void LeftProductOutput(const LeftProductOutputArgs<T>& args);

template <typename T>
void LeftProductGradients(const LeftProductGradientsArgs<T>& args);

}  // namespace cpu
}  // namespace lasp::kernels
