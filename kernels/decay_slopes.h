// The decay of TransNormer's heads: lambda = exp(-slope) a token.
#pragma once

#include <cstdint>

namespace lasp::kernels {

// Writes slopes[0 .. heads): base_h * (1 - layer / (layers - 1) + 1e-5), with layer / (layers - 1)
// taken as 0 in a model of one layer. base_h are the ALiBi slopes: for a power of two n,
// a^(h+1) with a = 2^(-8/n); for another count, those of the largest power of two c below it,
// followed by every other one of 2c. Layer 0 decays fastest; the last layer hardly at all.
void DecaySlopes(int64_t layer, int64_t layers, int64_t heads, double* slopes);

}  // namespace lasp::kernels
