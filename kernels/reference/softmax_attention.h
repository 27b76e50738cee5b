// Causal softmax attention, and rotary positions, in fp64, written from the formulas alone:
//   o_i = sum_j p_ij v_j,   p_ij = exp(s_ij) / sum_j exp(s_ij),   s_ij = q_i . k_j / sqrt(size)
// over the keys j <= offset + i; head h of the queries has head h kv_heads / heads of the others.
#pragma once

#include <cstdint>
#include <vector>

namespace lasp::kernels::reference {

// [batch, queries, heads, size] and [batch, keys, kv_heads, size], contiguous.
struct SoftmaxAttention {
  int64_t batch = 0;
  int64_t queries = 0;
  int64_t keys = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t size = 0;
  int64_t offset = 0;
  std::vector<double> q;
  std::vector<double> k;
  std::vector<double> v;
  // Where given, of each sequence the keys at which documents start, ascending: query i, which is
  // key offset + i, sees none before the last of them up to itself.
  std::vector<std::vector<int64_t>> starts = {};
};

struct SoftmaxAttentionResult {
  std::vector<double> output;    // as q
  std::vector<double> log_sums;  // log sum_j exp(s_ij): [batch, heads, queries]
};

SoftmaxAttentionResult SoftmaxAttentionForward(const SoftmaxAttention& x);

struct SoftmaxAttentionGradients {
  std::vector<double> q;
  std::vector<double> k;
  std::vector<double> v;
};

SoftmaxAttentionGradients SoftmaxAttentionBackward(const SoftmaxAttention& x,
                                                   const std::vector<double>& output_gradient);

// x [sequences, tokens, heads, size]: each pair (c, c + size / 2) of a head as a complex number
// times exp(i p base^(-2 c / size)), p the token's position.
std::vector<double> Rotated(const std::vector<double>& x, int64_t tokens, int64_t heads,
                            int64_t size, int64_t first_position, double base);

}  // namespace lasp::kernels::reference
