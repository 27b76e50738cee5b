// The learning rate at each step.
#pragma once

#include <cstdint>

#include "lasp/v1/training_spec.pb.h"

namespace lasp::worker {

// Of step n in 1 to max_steps, with w warm-up steps, peak p and end e = min_learning_rate:
//   n <= w     p n / w
//   CONSTANT   p
//   LINEAR     p + (e - p) t,  t = (n - w) / (max_steps - w), so that step max_steps has e
//   COSINE     e + (p - e) (1 + cos(pi t)) / 2
//   WSD        p until decay_steps remain, then linear so that step max_steps has e
// A run that is all warm-up ends at the peak. Immutable.
class LearningRateSchedule {
 public:
  // `spec` with its defaults written out.
  LearningRateSchedule(const lasp::v1::OptimizerSpec& spec, int64_t max_steps);

  double At(int64_t step) const;

 private:
  lasp::v1::OptimizerSpec::Schedule schedule_;
  double peak_;
  double end_;
  int64_t warmup_steps_;
  int64_t decay_steps_;
  int64_t max_steps_;
};

}  // namespace lasp::worker
