// Numbers that look random and follow from a seed alone, on every machine.
#pragma once

#include <cstdint>

#include "absl/time/time.h"

namespace lasp::simulation {

// SplitMix64. Each part of a world has a stream of its own, so that what one part draws changes
// nothing for the others.
class Random {
 public:
  Random(uint64_t seed, uint64_t stream) : state_(seed * 0x9E3779B97F4A7C15U + stream * kStride) {
    Next();
  }

  uint64_t Next() {
    state_ += 0x9E3779B97F4A7C15U;
    uint64_t z = state_;
    z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27U)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31U);
  }

  // 0 to n - 1.
  int Below(int n) { return static_cast<int>(Next() % static_cast<uint64_t>(n)); }

  // Both inclusive.
  int Between(int low, int high) { return low + Below(high - low + 1); }

  absl::Duration Between(absl::Duration low, absl::Duration high) {
    const auto span = static_cast<uint64_t>(absl::ToInt64Nanoseconds(high - low));
    return low + absl::Nanoseconds(static_cast<int64_t>(Next() % (span + 1)));
  }

  bool Chance(double p) { return static_cast<double>(Next() >> 11U) * 0x1p-53 < p; }

 private:
  static constexpr uint64_t kStride = 0xD1342543DE82EF95U;

  uint64_t state_;
};

}  // namespace lasp::simulation
