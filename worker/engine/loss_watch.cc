#include "worker/engine/loss_watch.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace lasp::worker {
namespace {

constexpr double kLeastSpread = 1e-3;

}  // namespace

LossWatch::LossWatch(double deviations, const std::vector<double>& losses)
    : deviations_(deviations), losses_(losses.begin(), losses.end()) {
  while (losses_.size() > kWindow) {
    losses_.pop_front();
  }
}

double LossWatch::limit() const {
  if (deviations_ <= 0 || losses_.size() < kFewest) {
    return std::numeric_limits<double>::infinity();
  }
  const auto count = static_cast<double>(losses_.size());
  const double mean = std::accumulate(losses_.begin(), losses_.end(), 0.0) / count;
  double squares = 0;
  for (const double loss : losses_) {
    squares += (loss - mean) * (loss - mean);
  }
  const double deviation = std::max(std::sqrt(squares / count), kLeastSpread * std::abs(mean));
  return mean + deviations_ * deviation;
}

void LossWatch::Add(double loss) {
  losses_.push_back(loss);
  if (losses_.size() > kWindow) {
    losses_.pop_front();
  }
}

}  // namespace lasp::worker
