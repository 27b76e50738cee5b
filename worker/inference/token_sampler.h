// The next token, drawn from a model's logits.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace lasp::worker {

// What is left of softmax(logits / temperature), in this order: the top_k most likely tokens, of
// them the fewest that hold top_p of what they hold together. Of equally likely tokens the lower
// comes first.
struct SamplingOptions {
  double temperature = 1;  // >= 0; 0: the most likely token
  int64_t top_k = 0;       // 0: all
  double top_p = 1;        // in (0, 1]; 1: all
};

// The same seed draws the same tokens from the same logits, on any machine. Not thread-safe.
class TokenSampler {
 public:
  TokenSampler(const SamplingOptions& options, uint64_t seed);

  // DATA_LOSS where a logit is not a number, or none is finite.
  absl::StatusOr<int32_t> Sample(absl::Span<const float> logits);

 private:
  // In [0, 1).
  double Uniform();
  // Leaves in order_ the tokens that may be drawn, the most likely first where any were left out.
  void Choose(absl::Span<const float> logits);

  const SamplingOptions options_;
  std::mt19937_64 random_;
  std::vector<int32_t> order_;
  std::vector<double> weights_;
};

}  // namespace lasp::worker
