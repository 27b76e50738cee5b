#include "kernels/adamw.h"

#include <cmath>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/simd.h"

namespace lasp::kernels::cpu {

template <typename T>
void AdamW(const AdamWArgs<T>& args) {
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
  ParallelRanges(args.count, 7, [&](int64_t begin, int64_t end) {
    RunVectorised([&]() LASP_ALWAYS_INLINE {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) {
        const T gradient = scale * args.gradient[i];
        const T first = beta1 * args.first_moment[i] + rest1 * gradient;
        const T second = beta2 * args.second_moment[i] + rest2 * (gradient * gradient);
        args.first_moment[i] = first;
        args.second_moment[i] = second;
        args.parameter[i] =
            keep * args.parameter[i] - rate * first / (std::sqrt(second) * root_scale + epsilon);
      }
    });
  });
}

template void AdamW<float>(const AdamWArgs<float>&);
template void AdamW<double>(const AdamWArgs<double>&);

}  // namespace lasp::kernels::cpu
