#include "server/connection_metrics.h"

namespace lasp::server {

std::vector<prometheus::MetricFamily> ConnectionMetrics::Collect() const {
  prometheus::MetricFamily family;
  family.name = "lasp_connections";
  family.help = "Open connections, by the port that they came to";
  family.type = prometheus::MetricType::Gauge;
  family.metric.reserve(counters_.size());
  for (const auto& [port, count] : counters_) {
    prometheus::ClientMetric& metric = family.metric.emplace_back();
    metric.label.push_back({"port", port});
    metric.gauge.value = static_cast<double>(count());
  }
  return {family};
}

}  // namespace lasp::server
