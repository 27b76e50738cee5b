// Whether a step's update may be made, and with which factor on the gradient. A loss or gradient
// that is not finite must not reach the parameters; a gradient whose global norm is above the limit
// is scaled down to it.
#pragma once

namespace lasp::kernels {

struct UpdateDecision {
  double apply = 0;           // 1: update; 0: leave everything as it is
  double gradient_scale = 1;  // min(1, max_gradient_norm / norm); 0 where nothing is applied
};

struct DecideUpdateArgs {
  double max_gradient_norm = 0;  // 0: no limit
  const double* loss_sum = nullptr;
  const double* sum_of_squares = nullptr;  // of the whole gradient
  UpdateDecision* decision = nullptr;
};

namespace cpu {

void DecideUpdate(const DecideUpdateArgs& args);

}  // namespace cpu
}  // namespace lasp::kernels
