// Sinusoidal positions (arXiv 1706.03762, section 3.5), added to rows of width D:
//
//   x_n[2 i]     += sin(p_n / 10000^(2 i / D))
//   x_n[2 i + 1] += cos(p_n / 10000^(2 i / D)),   p_n the position of row n in its sequence
//
// Angles are fp64 throughout, and what is added at a position is the same bits whatever part of the
// sequence it is computed with.
#pragma once

#include <cstdint>

namespace lasp::kernels {

template <typename T>
struct SinusoidalPositionsArgs {
  int64_t sequences = 0;
  int64_t tokens = 0;          // of each sequence
  int64_t width = 0;           // D
  int64_t first_position = 0;  // of each sequence's first token here
  T* x = nullptr;              // [sequences, tokens, width], added to
};

namespace cpu {

template <typename T>
void AddSinusoidalPositions(const SinusoidalPositionsArgs<T>& args);

}  // namespace cpu
}  // namespace lasp::kernels
