// The figures of a step that can be drawn over the steps.
#pragma once

#include <string>
#include <vector>

#include "lasp/v1/step_metrics.pb.h"

namespace lasp::client {

struct PlotMetric {
  // As `--metric` takes it.
  std::string name;
  std::string unit;
  double (*value)(const lasp::v1::StepMetrics& step) = nullptr;
  // Null for a figure that every step has.
  bool (*present)(const lasp::v1::StepMetrics& step) = nullptr;
};

// The first one is the default.
const std::vector<PlotMetric>& PlotMetrics();
std::vector<std::string> PlotMetricNames();

}  // namespace lasp::client
