// An axis with round numbers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lasp::client {

struct PlotTick {
  long double value = 0;
  std::string label;
};

// Wide enough for the difference of any two doubles.
struct PlotAxis {
  long double low = 0;
  long double high = 1;
  // From low to high.
  std::vector<PlotTick> ticks;

  // Where a value lies, from 0 (low) to `last` (high).
  int Place(long double value, int last) const;
};

// From the round number at or below `low` to the one at or above `high` (both finite, low <= high),
// with about `wanted` (> 0) ticks, each a multiple of 1, 2 or 5 times a power of ten. A single
// value gets room on both sides.
PlotAxis RoundAxis(double low, double high, int wanted);

// From `first` to `last` exactly, whole numbers only; `columns` decides how many labels there is
// room for.
PlotAxis StepAxis(int64_t first, int64_t last, int columns);

}  // namespace lasp::client
