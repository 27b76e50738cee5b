// Where a step stands in a job's life.
#pragma once

#include <compare>
#include <cstdint>

namespace lasp::server {

// A restarted job takes steps again: those of a newer generation come after all of an older one.
struct StepPosition {
  int64_t generation = 0;
  int64_t step = 0;

  friend auto operator<=>(const StepPosition&, const StepPosition&) = default;
};

}  // namespace lasp::server
