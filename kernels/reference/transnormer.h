// The whole TransNormer (version 1) forward in fp64, written from its formulas with plain loops:
// what the engine's gradients are held against by finite differences.
//
//   x = sqrt(D) E[ids]
//   each block:  x = x + GLA(norm(x));  x = x + SGLU(norm(x))
//   logits = norm(x) W_head^T;  loss = mean over the labels that are not -1 of the cross entropy
//   norm(x) = x / sqrt(mean(x^2) + 1e-6)
//   GLA:   [q, k, v, u] = x W_qkvu^T; q, k = silu(q), silu(k); o_n = sum_{m<=n} lambda^{n-m} (q_n .
//   k_m) v_m
//          in each head; y = (u (.) norm(o)) W_o^T, the norm over all heads together
//   SGLU:  y = ((x W_1^T) (.) (x W_2^T)) W_3^T
// A block with theta turns q and k by their positions in the sequence first: [x cos, x sin].
//
// And that of a Linear Transformer in the same blocks, phi(z) = elu(z) + 1:
//
//   x = sqrt(D) E[ids] + P,  P[n, 2 i] = sin(n / 10000^(2 i / D)), P[n, 2 i + 1] = cos(the same)
//   in the place of GLA:  [q, k, v] = x W_qkv^T;
//          o_n = sum_{m<=n} (phi(q_n) . phi(k_m)) v_m / (sum_{m<=n} phi(q_n) . phi(k_m) + 1e-6)
//          in each head; y = o W_o^T
//
// In both, a block with kv_heads has softmax attention (reference/softmax_attention.h) in the place
// of the others:
//
//   [q, k, v] = x W_qkv^T; q, k turned by their positions; o = attention(q, k, v); y = o W_o^T
#pragma once

#include <cstdint>
#include <vector>

namespace lasp::kernels::reference {

// Matrices are row-major [outputs, inputs], as in y = x W^T. D is the hidden size, G the SGLU's.
struct TransNormerBlock {
  // [4 D, D]: the rows of q, k, v, u in this order, heads within each; a Linear Transformer's has
  // none of u.
  std::vector<double> qkvu;
  std::vector<double> output;      // [D, D]
  std::vector<double> glu_input;   // [2 G, D]: the rows of W_1, then those of W_2
  std::vector<double> glu_output;  // [D, G]
  std::vector<double> theta;       // [heads, D / heads], or empty: no LRPE
  // Above 0: of softmax attention, and the rows of k and v in qkvu are of so many heads.
  int64_t kv_heads = 0;
};

struct TransNormer {
  bool linear_transformer = false;
  int64_t hidden_size = 0;
  int64_t heads = 0;
  int64_t glu_size = 0;
  int64_t vocabulary = 0;
  double rotary_base = 10000;
  std::vector<double> embedding;  // [vocabulary, D]
  std::vector<double> head;       // [vocabulary, D]; empty: tied to the embedding
  std::vector<TransNormerBlock> blocks;
};

// The decay slope of a head: 2^(-8 (h+1) / heads) (and for a number of heads that is no power of
// two, the slopes of the largest power of two below, then every other one of the next power of
// two), times 1 - layer / (layers - 1) + 1e-5, the quotient being 0 with one layer.
double TransNormerSlope(int64_t layer, int64_t layers, int64_t head, int64_t heads);

// [batch, length, vocabulary] logits of `ids` [batch, length].
std::vector<double> TransNormerLogits(const TransNormer& model, int64_t batch, int64_t length,
                                      const std::vector<int32_t>& ids);

// The token-mean loss in nats; labels [batch, length], -1 where a position has none.
double TransNormerLoss(const TransNormer& model, int64_t batch, int64_t length,
                       const std::vector<int32_t>& ids, const std::vector<int32_t>& labels);

}  // namespace lasp::kernels::reference
