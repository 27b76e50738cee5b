// Linear attention as a recurrence over single tokens, in fp64, written from the formulas alone:
//   S_n = lambda S_{n-1} + k_n^T v_n,  o_n = q_n S_n
// With theta, q and k are first rotated by their global positions, which start at `first_position`;
// the gradient of theta is sum over n of p_n x_n (-g1 sin(theta p_n) + g2 cos(theta p_n)).
#pragma once

#include <cstdint>
#include <vector>

namespace lasp::kernels::reference {

// All arrays are [batch, tokens, heads, width], contiguous.
struct LinearAttention {
  int64_t batch = 0;
  int64_t tokens = 0;
  int64_t heads = 0;
  int64_t key_size = 0;
  int64_t value_size = 0;
  std::vector<double> slopes;  // [heads]
  std::vector<double> theta;   // [heads, key_size], or empty: no LRPE
  int64_t first_position = 0;  // of the first token
  std::vector<double> q;
  std::vector<double> k;
  std::vector<double> v;
};

struct LinearAttentionGradients {
  std::vector<double> q;
  std::vector<double> k;
  std::vector<double> v;
  std::vector<double> theta;  // [heads, key_size], or empty
};

std::vector<double> LinearAttentionForward(const LinearAttention& x);

LinearAttentionGradients LinearAttentionBackward(const LinearAttention& x,
                                                 const std::vector<double>& output_gradient);

}  // namespace lasp::kernels::reference
