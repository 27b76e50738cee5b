// One AdamW update (Loshchilov and Hutter, decoupled weight decay) over a range of parameters:
//   g = control.gradient_scale * gradient
//   m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
//   p = p - learning_rate (weight_decay p + (m / correction1) / (sqrt(v / correction2) + epsilon))
// Moments may be kept in bf16, as bits: computed in fp32 like the others, and rounded at random
// (bf16_rounding.h) after the update has been made with them.
#pragma once

#include <cstdint>

#include "kernels/update_control.h"

namespace lasp::kernels {

// Moment: T, or uint16_t for bf16 where T is float.
template <typename T, typename Moment = T>
struct AdamWArgs {
  int64_t count = 0;
  T* parameter = nullptr;           // [count]
  const T* gradient = nullptr;      // [count]
  Moment* first_moment = nullptr;   // [count], m
  Moment* second_moment = nullptr;  // [count], v
  int64_t first_element = 0;  // of the range among all parameters: for the rounding of moments
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0;                 // 0 for what is not a matrix
  const UpdateControl* control = nullptr;  // nothing changes where it does not apply
};

namespace cpu {

template <typename T, typename Moment = T>
void AdamW(const AdamWArgs<T, Moment>& args);

}  // namespace cpu
}  // namespace lasp::kernels
