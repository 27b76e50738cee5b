#include "kernels/update_decision.h"

#include <cmath>

namespace lasp::kernels::cpu {

void DecideUpdate(const DecideUpdateArgs& args) {
  const double norm = std::sqrt(*args.sum_of_squares);
  if (!std::isfinite(*args.loss_sum) || !std::isfinite(norm)) {
    *args.decision = {.apply = 0, .gradient_scale = 0};
    return;
  }
  const bool clip = args.max_gradient_norm > 0 && norm > args.max_gradient_norm;
  *args.decision = {.apply = 1, .gradient_scale = clip ? args.max_gradient_norm / norm : 1};
}

}  // namespace lasp::kernels::cpu
