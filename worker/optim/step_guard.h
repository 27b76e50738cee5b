// Whether a step's update may be made: a loss or gradient that is not finite must not reach the
// parameters.
#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace lasp::worker {

// What to do with one step's reduced gradient. All ranks see the same bits, so all decide alike.
struct UpdateDecision {
  bool skip = false;
  double gradient_scale = 1;
};

class StepGuard {
 public:
  // max_gradient_norm 0: no clipping.
  StepGuard(double max_gradient_norm, int64_t max_skipped_steps)
      : max_gradient_norm_(max_gradient_norm), max_skipped_steps_(max_skipped_steps) {}

  // `loss` and `gradient_norm` over the whole world.
  UpdateDecision Judge(double loss, double gradient_norm);

  // FAILED_PRECONDITION once more than max_skipped_steps steps in a row have been skipped.
  absl::Status status() const;

  int64_t skipped_total() const { return skipped_total_; }

 private:
  const double max_gradient_norm_;
  const int64_t max_skipped_steps_;
  int64_t skipped_in_a_row_ = 0;
  int64_t skipped_total_ = 0;
};

}  // namespace lasp::worker
