#include "client/plot_metric.h"

namespace lasp::client {
namespace {

using Step = lasp::v1::StepMetrics;

std::vector<PlotMetric> MakeMetrics() {
  return {
      {"loss", "nats a token", [](const Step& step) { return step.loss(); }},
      {"eval_loss", "nats a token", [](const Step& step) { return step.eval_loss(); },
       [](const Step& step) { return step.has_eval_loss(); }},
      {"throughput", "tokens/s", [](const Step& step) { return step.tokens_per_second(); }},
      {"gradient_norm", "before clipping", [](const Step& step) { return step.gradient_norm(); }},
      {"learning_rate", "of the schedule", [](const Step& step) { return step.learning_rate(); }},
      {"step_time", "s", [](const Step& step) { return step.step_seconds(); }},
      {"data_time", "s of rank 0", [](const Step& step) { return step.data_seconds(); }},
      {"forward_time", "s of rank 0", [](const Step& step) { return step.forward_seconds(); }},
      {"backward_time", "s of rank 0", [](const Step& step) { return step.backward_seconds(); }},
      {"sp_wait", "s of rank 0", [](const Step& step) { return step.sp_wait_seconds(); }},
      {"sync_wait", "s of rank 0",
       [](const Step& step) { return step.gradient_sync_wait_seconds(); }},
      {"optimizer_time", "s of rank 0", [](const Step& step) { return step.optimizer_seconds(); }},
  };
}

}  // namespace

const std::vector<PlotMetric>& PlotMetrics() {
  static const auto* const metrics = new std::vector<PlotMetric>(MakeMetrics());
  return *metrics;
}

std::vector<std::string> PlotMetricNames() {
  std::vector<std::string> names;
  names.reserve(PlotMetrics().size());
  for (const PlotMetric& metric : PlotMetrics()) {
    names.push_back(metric.name);
  }
  return names;
}

}  // namespace lasp::client
