#include "kernels/update_control.h"

#include <cmath>

namespace lasp::kernels::cpu {

void JudgeUpdate(const JudgeUpdateArgs& args) {
  UpdateControl& control = *args.control;
  if (control.witness != control.witness_wanted ||
      (args.broken_off != nullptr && *args.broken_off != 0)) {
    control.apply = 0;
    control.gradient_scale = 0;
    return;
  }
  control.gradient_norm = std::sqrt(*args.sum_of_squares);
  if (!std::isfinite(*args.loss) || !std::isfinite(control.gradient_norm) ||
      *args.loss > control.loss_limit) {
    control.apply = 0;
    control.gradient_scale = 0;
    control.skipped += 1;
    control.skipped_in_a_row += 1;
    return;
  }
  const bool clip = args.max_gradient_norm > 0 && control.gradient_norm > args.max_gradient_norm;
  control.apply = 1;
  control.gradient_scale = clip ? args.max_gradient_norm / control.gradient_norm : 1;
  control.updates += 1;
  control.skipped_in_a_row = 0;
  control.correction1 = 1 - std::pow(args.beta1, control.updates);
  control.correction2 = 1 - std::pow(args.beta2, control.updates);
}

}  // namespace lasp::kernels::cpu
