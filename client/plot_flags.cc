#include "client/plot_flags.h"

#include <limits>

#include "client/flag_values.h"
#include "client/plot_metric.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

using Line = CommandLine;

constexpr int64_t kMaxStep = std::numeric_limits<int64_t>::max();
constexpr int kMinWidth = 24;
constexpr int kMinHeight = 3;
constexpr int kMaxSize = 1000;

absl::Status Ok() { return absl::OkStatus(); }

}  // namespace

CommandSpec PlotCommand() {
  return {"plot",
          "Jobs",
          "NAME",
          "Draw a job's loss, throughput or another figure over its steps",
          "Values that are not finite are gaps, marked under the curve and counted. With\n"
          "--watch it is drawn anew on a terminal until the job ends. Without UTF-8 it is\n"
          "drawn in ASCII.",
          {"lasp plot quickstart", "lasp plot quickstart --metric throughput --watch",
           "lasp plot quickstart --from 100 --width 120 --height 30",
           "lasp plot quickstart --metric gradient_norm -o json"},
          {{"--metric", 'm', "FIGURE", "loss, throughput, gradient_norm, ... (default loss)",
            [](const std::string& value, Line* line) {
              LASP_RETURN_IF_ERROR(ReadChoice("--metric", value, PlotMetricNames()).status());
              line->plot.metric = value;
              return Ok();
            },
            PlotMetricNames()},
           {"--from", '\0', "STEP", "The first step (default 1)",
            [](const std::string& value, Line* line) {
              return SetNumber<int64_t>("--from", value, 1, kMaxStep, &line->plot.from_step);
            }},
           {"--to", '\0', "STEP", "The last step (default: the last there is)",
            [](const std::string& value, Line* line) {
              return SetNumber<int64_t>("--to", value, 1, kMaxStep, &line->plot.to_step);
            }},
           {"--watch", 'w', "", "Draw each new step until the job ends",
            [](const std::string&, Line* line) {
              line->plot.watch = true;
              return Ok();
            }},
           {"--width", '\0', "COLUMNS", "Of the picture (default: the terminal's, or 80)",
            [](const std::string& value, Line* line) {
              return SetNumber<int>("--width", value, kMinWidth, kMaxSize, &line->plot.width);
            }},
           {"--height", '\0', "LINES", "Of the curve (default: what fits, at most 16)",
            [](const std::string& value, Line* line) {
              return SetNumber<int>("--height", value, kMinHeight, kMaxSize, &line->plot.height);
            }}}};
}

}  // namespace lasp::client
