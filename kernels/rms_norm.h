// SRMSNorm (no weight, no bias), with the residual sum before it fused in.
//   s = input + addend;  r = 1 / sqrt(mean(s^2) + epsilon);  y = s r
//   ds = r (dy - s_hat mean(s_hat dy)),  s_hat = s r
// R is the type of the inverse rms, where it is finer than T.
#pragma once

#include <cstdint>

namespace lasp::kernels {

inline constexpr double kRmsNormEpsilon = 1e-6;

template <typename T, typename R = T>
struct RmsNormForwardArgs {
  int64_t rows = 0;
  int64_t width = 0;
  double epsilon = kRmsNormEpsilon;
  const T* input = nullptr;   // [rows, width]
  const T* addend = nullptr;  // [rows, width] or null: what the block before added to the residual
  T* sum = nullptr;           // [rows, width], needed with an addend; may be `input` or `addend`
  T* output = nullptr;        // [rows, width]; may be null: only sum and inverse_rms are wanted
  R* inverse_rms = nullptr;   // [rows]; may be null: then nothing is saved
};

template <typename T, typename R = T>
struct RmsNormBackwardArgs {
  int64_t rows = 0;
  int64_t width = 0;
  const T* input = nullptr;            // [rows, width]: what was normalised (the sum)
  const R* inverse_rms = nullptr;      // [rows], from the forward
  const T* output_gradient = nullptr;  // [rows, width]
  const T* addend = nullptr;           // [rows, width] or null: the residual path's gradient
  T* input_gradient = nullptr;         // [rows, width] = ds + addend; may be any of the inputs
};

namespace cpu {

template <typename T>
void RmsNormForward(const RmsNormForwardArgs<T>& args);

template <typename T>
void RmsNormBackward(const RmsNormBackwardArgs<T>& args);

}  // namespace cpu
}  // namespace lasp::kernels
