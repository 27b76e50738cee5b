// LRPE on tiles: the rotation of rows, the turning of states, and the parts of theta's gradient.
// The formulas are those of kernels/lrpe.h; positions count from the start of a block.
#pragma once

#include <cstdint>
#include <vector>

namespace lasp::kernels::cpu {

// cos and sin of theta times a number of tokens, in fp64: what moves a state's origin.
struct Turn {
  std::vector<double> cosine;  // [key_size]
  std::vector<double> sine;    // [key_size]

  // Turns by no tokens at all.
  static Turn None(int64_t key_size);
  static Turn Of(const double* theta, int64_t key_size, int64_t tokens);

  // This turn followed by `next`.
  void Advance(const Turn& next);

  // The same turn the other way round.
  Turn Reversed() const;
};

// cosine[p, c] = cos(theta_c p), sine[p, c] likewise, for p in [0, positions).
template <typename T>
void RotaryTable(const double* theta, int64_t key_size, int64_t positions, T* cosine, T* sine);

// tile[p] = [x_p cos(theta p), x_p sin(theta p)], a tile of width 2 * key_size.
template <typename T>
void RotateRows(int64_t rows, int64_t key_size, const T* cosine, const T* sine, const T* x,
                int64_t x_stride, T* tile);

// dx_p = g_p's first half cos(theta p) + its second half sin(theta p), written or added.
template <typename T>
void UnrotateRows(int64_t rows, int64_t key_size, const T* cosine, const T* sine, const T* tile,
                  bool accumulate, T* dx, int64_t dx_stride);

// The rows of a tile of width 2 * key_size, as RotateRows leaves them, turned as a state is: may be
// in place.
template <typename T>
void TurnRows(int64_t rows, int64_t key_size, const Turn& turn, const T* tile, T* turned);

// out = decay * in + addend, in fp64 and rounded once: factors or terms that were rounded on their
// own, block after block, would drift with the length. `addend` has out's stride, and may be null;
// `out` may be either of the inputs.
template <typename T>
void DecayState(int64_t rows, int64_t width, double decay, const T* in, int64_t in_stride,
                const T* addend, T* out, int64_t out_stride);

// out = (decay * in + addend) turned, for a state of 2 * key_size rows; otherwise as DecayState.
template <typename T>
void TurnState(int64_t key_size, int64_t width, const Turn& turn, double decay, const T* in,
               int64_t in_stride, const T* addend, T* out, int64_t out_stride);

// sum[c] += sum_p (weight_first + weight_step * p) x_pc (cos(theta_c p) g_p,key_size+c -
// sin(theta_c p) g_pc)
template <typename T>
void AddThetaRows(int64_t rows, int64_t key_size, const T* cosine, const T* sine, const T* x,
                  int64_t x_stride, const T* gradient_tile, double weight_first, double weight_step,
                  double* sum);

// sum[c] += weight * (a's first half . b's second half - a's second half . b's first half), row c
// of each half, for states of 2 * key_size rows.
template <typename T>
void AddThetaStates(int64_t key_size, int64_t width, double weight, const T* a, int64_t a_stride,
                    const T* b, int64_t b_stride, double* sum);

}  // namespace lasp::kernels::cpu
