#include "client/plot.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/number_text.h"
#include "client/plot_axis.h"
#include "client/plot_canvas.h"
#include "client/utf8.h"

namespace lasp::client {
namespace {

constexpr int kMinColumns = 24;
constexpr int kMinRows = 3;
constexpr int kRowsPerTick = 3;

// What the frame is drawn with.
struct Glyphs {
  const char* vertical;
  const char* vertical_tick;
  const char* corner;
  const char* horizontal;
  const char* horizontal_tick;
  const char* gap;
};

constexpr Glyphs kLines = {"│", "┤", "└", "─", "┬", "×"};
constexpr Glyphs kAscii = {"|", "+", "+", "-", "+", "x"};

// What is finite.
struct Extent {
  const PlotSeries::value_type* low = nullptr;
  const PlotSeries::value_type* high = nullptr;
  const PlotSeries::value_type* last = nullptr;
  size_t not_finite = 0;

  explicit Extent(const PlotSeries& series) {
    for (const auto& point : series) {
      if (!std::isfinite(point.second)) {
        ++not_finite;
        continue;
      }
      last = &point;
      low = low == nullptr || point.second < low->second ? &point : low;
      high = high == nullptr || point.second > high->second ? &point : high;
    }
  }
};

std::string Value(double value) {
  const double size = std::fabs(value);
  if (size != 0 && (size < 1e-3 || size >= 1e15)) {
    return absl::StrFormat("%.3e", value);
  }
  return size >= 1000 ? FormatRate(value) : absl::StrFormat("%.4g", value);
}

std::string NotFinite(size_t count, const char* mark) {
  return absl::StrCat(count, count == 1 ? " value is" : " values are", " not finite (", mark, ")");
}

std::string Caption(const Extent& extent) {
  return absl::StrCat("last ", Value(extent.last->second), " at step ", extent.last->first,
                      ", lowest ", Value(extent.low->second), " at ", extent.low->first,
                      ", highest ", Value(extent.high->second), " at ", extent.high->first);
}

// Draws the curve; gives the columns with a value that is not finite.
std::set<int> DrawCurve(const PlotSeries& series, const PlotAxis& steps, const PlotAxis& values,
                        PlotCanvas* canvas) {
  std::set<int> gaps;
  bool connected = false;
  int last_x = 0;
  int last_y = 0;
  for (const auto& [step, value] : series) {
    const int x = steps.Place(static_cast<long double>(step), canvas->dot_columns() - 1);
    if (!std::isfinite(value)) {
      gaps.insert(x / canvas->dots_across());
      connected = false;
      continue;
    }
    const int y = values.Place(value, canvas->dot_rows() - 1);
    canvas->Line(connected ? last_x : x, connected ? last_y : y, x, y);
    connected = true;
    last_x = x;
    last_y = y;
  }
  return gaps;
}

// The line under the curve and that of its labels.
std::string StepLines(const PlotAxis& steps, const std::set<int>& gaps, int margin,
                      const PlotCanvas& canvas, const Glyphs& glyphs) {
  const int columns = canvas.dot_columns() / canvas.dots_across();
  std::set<int> ticks;
  std::string labels;
  for (const PlotTick& tick : steps.ticks) {
    const int column = steps.Place(tick.value, canvas.dot_columns() - 1) / canvas.dots_across();
    // Under its tick, or ending at the last column.
    const int start =
        margin + 1 + std::max(0, std::min(column, columns - static_cast<int>(tick.label.size())));
    if (!labels.empty() && start < static_cast<int>(labels.size()) + 2) {
      continue;
    }
    ticks.insert(column);
    labels.resize(static_cast<size_t>(start), ' ');
    labels += tick.label;
  }
  std::string line(static_cast<size_t>(margin), ' ');
  line += glyphs.corner;
  for (int column = 0; column < columns; ++column) {
    line += gaps.count(column) > 0    ? glyphs.gap
            : ticks.count(column) > 0 ? glyphs.horizontal_tick
                                      : glyphs.horizontal;
  }
  constexpr char kName[] = "  step";
  if (static_cast<int>(labels.size() + sizeof(kName)) <= margin + 1 + columns) {
    labels += kName;
  }
  return absl::StrCat(line, "\n", labels, "\n");
}

}  // namespace

std::string DrawPlot(const std::string& title, const std::string& unit, const PlotSeries& series,
                     const PlotSize& size) {
  const Glyphs& glyphs = size.utf8 ? kLines : kAscii;
  const int width = std::max(kMinColumns, size.columns);
  const int rows = std::max(kMinRows, size.rows);
  const auto fit = [&](const std::string& line) {
    return absl::StrCat(TruncateToWidth(line, width, size.utf8), "\n");
  };
  const std::string heading = fit(absl::StrCat(title, " (", unit, ")"));
  const Extent extent(series);
  const std::string gaps_line =
      extent.not_finite == 0 ? "" : fit(NotFinite(extent.not_finite, glyphs.gap));
  if (extent.last == nullptr) {
    return absl::StrCat(heading, gaps_line.empty() ? fit("no step has a value yet") : gaps_line);
  }
  const PlotAxis values =
      RoundAxis(extent.low->second, extent.high->second, std::max(1, rows / kRowsPerTick));
  size_t label_width = 0;
  for (const PlotTick& tick : values.ticks) {
    label_width = std::max(label_width, tick.label.size());
  }
  const int margin = static_cast<int>(label_width) + 1;
  const int columns = std::max(8, width - margin - 1);
  const PlotAxis steps = StepAxis(series.begin()->first, series.rbegin()->first, columns);
  PlotCanvas canvas(columns, rows, size.utf8);
  std::vector<std::string> labels(static_cast<size_t>(rows));
  for (const PlotTick& tick : values.ticks) {
    const int dot = values.Place(tick.value, canvas.dot_rows() - 1);
    labels[static_cast<size_t>(rows - 1 - dot / canvas.dots_down())] = tick.label;
  }
  const std::set<int> gaps = DrawCurve(series, steps, values, &canvas);
  std::string text = heading;
  for (int row = 0; row < rows; ++row) {
    const std::string& label = labels[static_cast<size_t>(row)];
    absl::StrAppend(&text, std::string(label_width - label.size(), ' '), label, " ",
                    label.empty() ? glyphs.vertical : glyphs.vertical_tick, canvas.Row(row), "\n");
  }
  absl::StrAppend(&text, StepLines(steps, gaps, margin, canvas, glyphs), fit(Caption(extent)),
                  gaps_line);
  return text;
}

}  // namespace lasp::client
