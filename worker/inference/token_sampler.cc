#include "worker/inference/token_sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"

namespace lasp::worker {

TokenSampler::TokenSampler(const SamplingOptions& options, uint64_t seed)
    : options_(options), random_(seed) {}

double TokenSampler::Uniform() {
  // 53 bits, not a distribution of the library, whose numbers differ from one to the other.
  return static_cast<double>(random_() >> 11) * 0x1p-53;
}

void TokenSampler::Choose(absl::Span<const float> logits) {
  order_.resize(logits.size());
  std::iota(order_.begin(), order_.end(), 0);
  const auto count = static_cast<int64_t>(order_.size());
  const int64_t kept = options_.top_k > 0 ? std::min(options_.top_k, count) : count;
  if (kept < count || options_.top_p < 1) {
    std::partial_sort(order_.begin(), order_.begin() + kept, order_.end(),
                      [&](int32_t a, int32_t b) {
                        return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
                      });
    order_.resize(static_cast<size_t>(kept));
  }
}

absl::StatusOr<int32_t> TokenSampler::Sample(absl::Span<const float> logits) {
  const auto wrong =
      std::find_if(logits.begin(), logits.end(), [](float value) { return std::isnan(value); });
  const auto best = std::max_element(logits.begin(), logits.end());
  if (wrong != logits.end() || best == logits.end() || !std::isfinite(*best)) {
    return absl::DataLossError(
        "the model's logits are not finite: its weights are damaged, or its training diverged");
  }
  if (options_.temperature == 0) {
    return static_cast<int32_t>(best - logits.begin());
  }
  Choose(logits);
  weights_.clear();
  weights_.reserve(order_.size());
  double sum = 0;
  for (const int32_t token : order_) {
    weights_.push_back(
        std::exp((static_cast<double>(logits[token]) - *best) / options_.temperature));
    sum += weights_.back();
  }
  size_t allowed = weights_.size();
  if (options_.top_p < 1) {
    double held = 0;
    for (allowed = 0; allowed < weights_.size() && held < options_.top_p * sum; ++allowed) {
      held += weights_[allowed];
    }
    sum = held;
  }
  double left = Uniform() * sum;
  for (size_t i = 0; i + 1 < allowed; ++i) {
    left -= weights_[i];
    if (left < 0) {
      return order_[i];
    }
  }
  return order_[allowed - 1];
}

}  // namespace lasp::worker
