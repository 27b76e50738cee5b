// Rotary positions (RoPE, arXiv 2104.09864) of softmax attention's queries and keys: each head's
// numbers are turned in pairs (x_c, x_{c + d/2}), c < d/2, by the angle a_c = p base^{-2 c / d} of
// the position p in the whole sequence, d the head size:
//
//   y_c = x_c cos a_c - x_{c + d/2} sin a_c,   y_{c + d/2} = x_{c + d/2} cos a_c + x_c sin a_c
//
// A product of two rows turned alike then depends on the difference of their positions. The
// backward is the inverse: the turn by -a_c, of the gradient. Angles, sines and cosines are fp64
// throughout, and what a position turns by is the same bits whatever part of the sequence it is
// computed with.
#pragma once

#include <cstdint>

namespace lasp::kernels {

template <typename T>
struct RotaryPositionsArgs {
  int64_t sequences = 0;
  int64_t tokens = 0;  // of each sequence
  int64_t heads = 0;
  int64_t head_size = 0;       // even
  int64_t first_position = 0;  // of each sequence's first token here
  double base = 10000;         // above 1
  bool inverse = false;
  T* x = nullptr;            // [sequences, tokens, heads, head_size], turned in place
  int64_t token_stride = 0;  // elements between tokens; heads lie side by side
};

namespace cpu {

template <typename T>
void TurnByPositions(const RotaryPositionsArgs<T>& args);

}  // namespace cpu
}  // namespace lasp::kernels
