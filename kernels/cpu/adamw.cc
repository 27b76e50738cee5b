#include "kernels/adamw.h"

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "kernels/bf16_rounding.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/simd.h"

namespace lasp::kernels::cpu {
namespace {

template <typename T, typename Moment>
LASP_ALWAYS_INLINE inline T Widened(Moment moment) {
  if constexpr (std::is_same_v<Moment, T>) {
    return moment;
  } else {
    return FromBf16Bits(moment);
  }
}

// `bits`: random, where the moment is narrower.
template <typename Moment, typename T>
LASP_ALWAYS_INLINE inline Moment Narrowed(T moment, uint32_t bits) {
  if constexpr (std::is_same_v<Moment, T>) {
    return moment;
  } else {
    return RoundedAtRandom(moment, bits);
  }
}

}  // namespace

template <typename T, typename Moment>
void AdamW(const AdamWArgs<T, Moment>& args) {
  const UpdateControl& control = *args.control;
  if (control.apply == 0) {
    return;
  }
  // p (1 - lr wd) - (lr / correction1) m / (sqrt(v / correction2) + epsilon)
  const T keep = static_cast<T>(1.0 - control.learning_rate * args.weight_decay);
  const T rate = static_cast<T>(control.learning_rate / control.correction1);
  const T root_scale = static_cast<T>(1.0 / std::sqrt(control.correction2));
  const T epsilon = static_cast<T>(args.epsilon);
  const T beta1 = static_cast<T>(args.beta1);
  const T beta2 = static_cast<T>(args.beta2);
  const T rest1 = static_cast<T>(1.0 - args.beta1);
  const T rest2 = static_cast<T>(1.0 - args.beta2);
  const T scale = static_cast<T>(control.gradient_scale);
  const auto update = static_cast<uint32_t>(control.updates);
  ParallelRanges(args.count, 7, [&](int64_t begin, int64_t end) {
    RunVectorised([&]() LASP_ALWAYS_INLINE {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) {
        const T gradient = scale * args.gradient[i];
        const T first = beta1 * Widened<T>(args.first_moment[i]) + rest1 * gradient;
        const T second = beta2 * Widened<T>(args.second_moment[i]) + rest2 * (gradient * gradient);
        [[maybe_unused]] const uint32_t bits =
            std::is_same_v<Moment, T> ? 0 : RoundingBits(update, args.first_element + i);
        args.first_moment[i] = Narrowed<Moment>(first, bits);
        args.second_moment[i] = Narrowed<Moment>(second, bits >> 16);
        args.parameter[i] =
            keep * args.parameter[i] - rate * first / (std::sqrt(second) * root_scale + epsilon);
      }
    });
  });
}

template void AdamW<float, float>(const AdamWArgs<float, float>&);
template void AdamW<float, uint16_t>(const AdamWArgs<float, uint16_t>&);
template void AdamW<double, double>(const AdamWArgs<double, double>&);

}  // namespace lasp::kernels::cpu
