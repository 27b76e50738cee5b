// How many connections each port has.
#pragma once

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace lasp::server {

// Read at each scrape. Thread-safe.
class ConnectionMetrics final : public prometheus::Collectable {
 public:
  // By the name of the port; what each counts with outlives this.
  using Counters = std::map<std::string, std::function<size_t()>>;

  explicit ConnectionMetrics(Counters counters) : counters_(std::move(counters)) {}

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const Counters counters_;
};

}  // namespace lasp::server
