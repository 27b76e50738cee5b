#include "worker/optim/learning_rate_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace lasp::worker {
namespace {

// How far `step` is on the way from `begin` to `end`, in [0, 1].
double Progress(int64_t step, int64_t begin, int64_t end) {
  if (end <= begin) {
    return step >= end ? 1 : 0;
  }
  return std::clamp(static_cast<double>(step - begin) / static_cast<double>(end - begin), 0.0, 1.0);
}

}  // namespace

LearningRateSchedule::LearningRateSchedule(const lasp::v1::OptimizerSpec& spec, int64_t max_steps)
    : schedule_(spec.schedule()),
      peak_(spec.learning_rate()),
      end_(spec.min_learning_rate()),
      warmup_steps_(spec.warmup_steps()),
      decay_steps_(spec.decay_steps()),
      max_steps_(max_steps) {}

double LearningRateSchedule::At(int64_t step) const {
  if (step <= warmup_steps_) {
    return peak_ * static_cast<double>(step) / static_cast<double>(warmup_steps_);
  }
  switch (schedule_) {
    case lasp::v1::OptimizerSpec::SCHEDULE_LINEAR:
      return peak_ + (end_ - peak_) * Progress(step, warmup_steps_, max_steps_);
    case lasp::v1::OptimizerSpec::SCHEDULE_COSINE: {
      const double progress = Progress(step, warmup_steps_, max_steps_);
      return end_ + (peak_ - end_) * (1 + std::cos(std::numbers::pi * progress)) / 2;
    }
    case lasp::v1::OptimizerSpec::SCHEDULE_WSD: {
      const int64_t decay_begin = std::max(warmup_steps_, max_steps_ - decay_steps_);
      return peak_ + (end_ - peak_) * Progress(step, decay_begin, max_steps_);
    }
    default:
      return peak_;
  }
}

}  // namespace lasp::worker
