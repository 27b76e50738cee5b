// The picture of a figure over the steps.
#include "client/plot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "client/plot_axis.h"
#include "client/plot_canvas.h"
#include "client/utf8.h"

namespace lasp::client {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::vector<std::string> Lines(const std::string& text) {
  return absl::StrSplit(text, '\n', absl::SkipEmpty());
}

std::vector<std::string> Labels(const PlotAxis& axis) {
  std::vector<std::string> labels;
  labels.reserve(axis.ticks.size());
  for (const PlotTick& tick : axis.ticks) {
    labels.push_back(tick.label);
  }
  return labels;
}

TEST(PlotAxis, HasRoundNumbersAroundTheValues) {
  EXPECT_EQ(Labels(RoundAxis(2.61, 5.55, 5)), (std::vector<std::string>{"2", "3", "4", "5", "6"}));
  EXPECT_EQ(Labels(RoundAxis(-0.2, 0.31, 4)),
            (std::vector<std::string>{"-0.2", "0.0", "0.2", "0.4"}));
  EXPECT_EQ(Labels(RoundAxis(13'900, 14'300, 4)),
            (std::vector<std::string>{"13.9k", "14.0k", "14.1k", "14.2k", "14.3k"}));
  EXPECT_EQ(Labels(RoundAxis(0, 90'000, 2)), (std::vector<std::string>{"0", "50k", "100k"}));
  EXPECT_EQ(Labels(RoundAxis(0, 3e-5, 3)),
            (std::vector<std::string>{"0e+00", "1e-05", "2e-05", "3e-05"}));
}

TEST(PlotAxis, GivesASingleValueRoom) {
  for (const double value : {0.0, 3.0, -1e-300, 1e300, std::numeric_limits<double>::max()}) {
    const PlotAxis axis = RoundAxis(value, value, 5);
    EXPECT_LT(axis.low, value);
    EXPECT_GT(axis.high, value);
    EXPECT_GE(axis.ticks.size(), 2U);
    EXPECT_LE(axis.ticks.size(), 12U);
  }
}

TEST(PlotAxis, HoldsTheLargestDoubles) {
  constexpr double kMax = std::numeric_limits<double>::max();
  const PlotAxis axis = RoundAxis(-kMax, kMax, 4);
  EXPECT_LE(axis.low, -kMax);
  EXPECT_GE(axis.high, kMax);
  EXPECT_EQ(axis.Place(-kMax, 100) + axis.Place(kMax, 100), 100);
  EXPECT_LE(axis.ticks.size(), 6U);
}

TEST(PlotAxis, PutsTheFirstStepFirst) {
  EXPECT_EQ(Labels(StepAxis(1, 100, 40)),
            (std::vector<std::string>{"1", "20", "40", "60", "80", "100"}));
  EXPECT_EQ(Labels(StepAxis(7, 7, 60)), std::vector<std::string>{"7"});
  EXPECT_LE(Labels(StepAxis(1, std::numeric_limits<int64_t>::max(), 60)).size(), 4U);
}

TEST(PlotCanvas, DrawsLinesInBraille) {
  PlotCanvas canvas(3, 1, true);
  canvas.Line(0, 0, 3, 3);
  EXPECT_EQ(canvas.Row(0), "\u2860\u280a");
  PlotCanvas dots(4, 2, false);
  dots.Line(0, 0, 3, 1);
  EXPECT_EQ(dots.Row(0), "  **");
  EXPECT_EQ(dots.Row(1), "**");
}

TEST(Plot, DrawsInAscii) {
  PlotSeries series;
  for (int step = 1; step <= 10; ++step) {
    series[step] = 11 - step;
  }
  series[6] = kNan;
  EXPECT_EQ(DrawPlot("loss of job/a", "nats", series, {.columns = 50, .rows = 6}),
            R"(loss of job/a (nats)
10 +********
   |        **********
 5 +                  ***
   |                              ********
   |                                      ********
 0 +
   ++----+----+----+----+----x----+----+----+----+
    1    2    3    4    5    6    7    8    9   10
last 1 at step 10, lowest 1 at 10, highest 10 at 1
1 value is not finite (x)
)");
}

TEST(Plot, MarksAndCountsWhatIsNotFinite) {
  PlotSeries series = {{1, 5}, {2, kNan}, {3, kInfinity}, {4, 4}, {5, 3}};
  const std::string plot = DrawPlot("loss", "nats", series, {.columns = 60, .rows = 4});
  EXPECT_THAT(plot, EndsWith("last 3 at step 5, lowest 3 at 5, highest 5 at 1\n"
                             "2 values are not finite (x)\n"));
  const std::vector<std::string> lines = Lines(plot);
  EXPECT_EQ(std::count(lines[5].begin(), lines[5].end(), 'x'), 2) << plot;
  // The last value before the gap is a dot of its own.
  EXPECT_THAT(lines[2], StartsWith("4 +*  "));
  EXPECT_THAT(DrawPlot("loss", "nats", series, {.columns = 90, .rows = 4, .utf8 = true}),
              AllOf(HasSubstr("×"), HasSubstr("2 values are not finite (×)\n"), HasSubstr("┤"),
                    Not(HasSubstr("|"))));
}

TEST(Plot, SaysWhereThereIsNothingToDraw) {
  EXPECT_EQ(DrawPlot("loss", "nats", {}, {}), "loss (nats)\nno step has a value yet\n");
  EXPECT_THAT(DrawPlot("loss", "nats", {{1, kNan}}, {}), HasSubstr("1 value is not finite (x)\n"));
}

TEST(Plot, FitsEverySize) {
  PlotSeries wild;
  for (int step = 1; step <= 500; ++step) {
    wild[step * 1'000'003LL] =
        step % 7 == 0 ? kNan : std::ldexp(step % 2 == 0 ? 1.5 : -1.5, (step % 300) - 100);
  }
  wild[1] = std::numeric_limits<double>::max();
  wild[2] = std::numeric_limits<double>::lowest();
  for (const PlotSeries& series : {wild, PlotSeries{{3, 1.25}}, PlotSeries{{1, 0}, {2, 1e-320}}}) {
    for (int width = 24; width < 150; width += 3) {
      for (const int rows : {1, 3, 9, 40}) {
        for (const bool utf8 : {false, true}) {
          const std::string plot = DrawPlot("a figure", "of no unit", series, {width, rows, utf8});
          const std::vector<std::string> lines = Lines(plot);
          EXPECT_EQ(std::ssize(lines), std::max(3, rows) + (series.size() > 2 ? 5 : 4)) << plot;
          for (const std::string& line : lines) {
            EXPECT_LE(DisplayWidth(line), width) << plot;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace lasp::client
