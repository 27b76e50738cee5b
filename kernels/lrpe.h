// LRPE, the rotary positions of linear attention: x becomes [x cos(theta p), x sin(theta p)], which
// doubles the key size, so that q_n . k_m gains the factor cos(theta (n - m)) in each dimension.
//
// Only differences of positions matter. Inside the kernels a position counts from the start of a
// block of 64 tokens, and the state, S = [a; b] with a the cosine and b the sine half, turns when
// its origin moves L tokens ahead: a' = a cos(L theta) + b sin(L theta), b' = b cos(L theta) - a
// sin(L theta). Angles are formed in fp64; no caller ever passes a position. The kernels of
// linear_attention.h apply all of this when they are given theta; the state they exchange has its
// origin at the next token.
#pragma once

#include <cstdint>

namespace lasp::kernels {

// Writes theta[heads, head_size], theta_{h,i} = 10000^(-2 (h head_size + i) / (heads head_size)):
// the fixed frequencies, and the initial value of learned ones.
void LrpeTheta(int64_t heads, int64_t head_size, double* theta);

}  // namespace lasp::kernels
