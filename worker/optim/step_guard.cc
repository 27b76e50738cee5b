#include "worker/optim/step_guard.h"

#include "absl/strings/str_cat.h"

namespace lasp::worker {

void StepGuard::Count(bool skipped) {
  if (skipped) {
    ++skipped_in_a_row_;
    ++skipped_total_;
    return;
  }
  skipped_in_a_row_ = 0;
  ++updates_;
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
