// What decides on a step's update. It lies where the gradients are, so that no host waits between
// backward and update. A loss or gradient that is not finite must not reach the parameters; a
// gradient whose global norm is above the limit is scaled down to it.
#pragma once

#include <cstdint>
#include <limits>

namespace lasp::kernels {

// All double, so that it is a row of numbers to whoever only carries it.
struct UpdateControl {
  // Whether every rank's part is in the gradient: what has been summed, and what that should be. A
  // sum that was broken off leaves another number there, and then nothing changes and nothing is
  // counted.
  double witness = 0;
  double witness_wanted = 0;
  // Of this step. The host writes what is above and these two, JudgeUpdate the rest.
  double learning_rate = 0;
  double loss_limit = std::numeric_limits<double>::infinity();  // a loss above it does not update
  double gradient_norm = 0;                                     // before clipping
  double apply = 0;           // 1: this step updates; 0: it leaves everything as it is
  double gradient_scale = 1;  // min(1, max_gradient_norm / gradient_norm)
  double updates = 0;         // made so far, with this one
  double skipped = 0;         // steps without an update so far
  double skipped_in_a_row = 0;
  double correction1 = 1;  // 1 - beta1^updates
  double correction2 = 1;  // 1 - beta2^updates
};

struct JudgeUpdateArgs {
  double max_gradient_norm = 0;  // 0: no limit
  double beta1 = 0.9;
  double beta2 = 0.95;
  const double* loss = nullptr;
  const double* sum_of_squares = nullptr;  // of the whole gradient
  UpdateControl* control = nullptr;
  // Where it is not 0, communication has been broken off before this update, and the gradient may
  // be anything, whatever the witness says: sums that end early do not end in order. Null: it never
  // is.
  const uint32_t* broken_off = nullptr;
};

namespace cpu {

void JudgeUpdate(const JudgeUpdateArgs& args);

}  // namespace cpu
}  // namespace lasp::kernels
