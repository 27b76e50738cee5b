// One figure over the steps of a job, drawn with characters.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace lasp::client {

struct PlotSize {
  // Of the whole picture, in characters.
  int columns = 80;
  // Of the curve alone.
  int rows = 16;
  // Braille and lines; ASCII without.
  bool utf8 = false;
};

// By step. A value that is not finite is a gap, and has a mark on the axis of steps.
using PlotSeries = std::map<int64_t, double>;

// The picture, below it the newest, lowest and highest value, and how many are not finite. `title`
// and `unit` are printed as they are. No line is wider than size.columns, which is taken as at
// least 24. Says so where there is nothing to draw.
std::string DrawPlot(const std::string& title, const std::string& unit, const PlotSeries& series,
                     const PlotSize& size);

}  // namespace lasp::client
