#include "worker/optim/step_guard.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace lasp::worker {

UpdateDecision StepGuard::Judge(double loss, double gradient_norm) {
  if (!std::isfinite(loss) || !std::isfinite(gradient_norm)) {
    ++skipped_in_a_row_;
    ++skipped_total_;
    return {.skip = true, .gradient_scale = 0};
  }
  skipped_in_a_row_ = 0;
  const bool clip = max_gradient_norm_ > 0 && gradient_norm > max_gradient_norm_;
  return {.skip = false, .gradient_scale = clip ? max_gradient_norm_ / gradient_norm : 1};
}

absl::Status StepGuard::status() const {
  if (skipped_in_a_row_ <= max_skipped_steps_) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "the loss or the gradient was not finite in ", skipped_in_a_row_,
      " steps in a row, more than optimizer.max_skipped_steps (", max_skipped_steps_,
      "): lower optimizer.learning_rate or optimizer.max_gradient_norm, or check the data"));
}

}  // namespace lasp::worker
