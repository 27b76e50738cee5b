#include "client/plot_axis.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace lasp::client {
namespace {

// The smallest of 1, 2 and 5 times a power of ten that is at least `least`.
long double RoundStep(long double least) {
  const long double power = std::pow(10.0L, std::floor(std::log10(least)));
  for (const int factor : {1, 2, 5}) {
    if (factor * power >= least * 0.999'999L) {
      return factor * power;
    }
  }
  return 10 * power;
}

int Exponent(long double value) { return static_cast<int>(std::floor(std::log10(value) + 1e-9L)); }

// So many digits that ticks `step` apart differ; thousands as k, M, G, T.
std::string TickLabel(long double value, long double step, long double largest) {
  static constexpr const char* kUnits[] = {"", "k", "M", "G", "T"};
  const int top = Exponent(largest);
  const int bottom = Exponent(step);
  if (top >= 15 || top < -4) {
    return absl::StrFormat("%.*e", std::clamp(top - bottom, 0, 6), static_cast<double>(value));
  }
  const int unit = top >= 4 ? top / 3 : 0;
  if (value == 0 && unit > 0) {
    return "0";
  }
  const int decimals = std::clamp(3 * unit - bottom, 0, 12);
  const auto scaled = static_cast<double>(value / std::pow(1000.0L, unit));
  return absl::StrFormat("%.*f%s", decimals, scaled == 0 ? 0.0 : scaled, kUnits[unit]);
}

}  // namespace

int PlotAxis::Place(long double value, int last) const {
  if (high <= low) {
    return 0;
  }
  const long double place = std::round((value - low) / (high - low) * last);
  return static_cast<int>(std::clamp<long double>(place, 0, last));
}

PlotAxis RoundAxis(double low, double high, int wanted) {
  constexpr long double kLargest = std::numeric_limits<double>::max();
  long double bottom = low;
  long double top = high;
  // Neighbours among the doubles are a single value to the eye, and below what a label could tell.
  const long double size = std::max(std::fabs(bottom), std::fabs(top));
  if (top - bottom <= size * 1e-9L) {
    const long double room = size == 0 ? 1 : size / 10;
    bottom -= room;
    top += room;
  }
  const long double step = RoundStep((top - bottom) / std::max(1, wanted));
  PlotAxis axis;
  axis.low = std::floor(bottom / step + 1e-9L) * step;
  axis.high = std::ceil(top / step - 1e-9L) * step;
  const long double largest =
      std::min(kLargest, std::max(std::fabs(axis.low), std::fabs(axis.high)));
  const auto count = std::llround((axis.high - axis.low) / step);
  axis.ticks.reserve(static_cast<size_t>(count) + 1);
  for (int64_t i = 0; i <= count; ++i) {
    const long double value = axis.low + static_cast<long double>(i) * step;
    // A value that only rounding keeps from zero.
    const long double shown = std::fabs(value) < step / 2 ? 0 : value;
    axis.ticks.push_back({shown, TickLabel(std::clamp(shown, -kLargest, kLargest), step, largest)});
  }
  return axis;
}

PlotAxis StepAxis(int64_t first, int64_t last, int columns) {
  PlotAxis axis;
  axis.low = static_cast<long double>(first);
  axis.high = static_cast<long double>(last);
  constexpr int kGap = 3;
  const int label_width = static_cast<int>(absl::StrCat(last).size()) + kGap;
  const int wanted = std::max(1, columns / label_width);
  const long double step = std::max(1.0L, RoundStep(std::max(1.0L, axis.high - axis.low) / wanted));
  const auto first_multiple = static_cast<int64_t>(std::ceil(axis.low / step));
  const auto last_multiple = static_cast<int64_t>(std::floor(axis.high / step));
  for (int64_t multiple = first_multiple; multiple <= last_multiple; ++multiple) {
    const long double value = static_cast<long double>(multiple) * step;
    axis.ticks.push_back({value, absl::StrFormat("%.0f", static_cast<double>(value))});
  }
  // The first step is where the eye looks for it; a round number too near gives way.
  if (axis.ticks.empty() || axis.ticks.front().value > axis.low) {
    if (!axis.ticks.empty() && axis.Place(axis.ticks.front().value, columns - 1) < label_width) {
      axis.ticks.erase(axis.ticks.begin());
    }
    axis.ticks.insert(axis.ticks.begin(), {axis.low, absl::StrCat(first)});
  }
  return axis;
}

}  // namespace lasp::client
