// The coordinator's metrics that are read at each scrape, so that the figures are right whatever
// the process has missed: jobs, workers, streams, queues. Names and labels are an interface:
// dashboards and alerts use them.
#pragma once

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include <string>
#include <utility>
#include <vector>

#include "server/server_core.h"
#include "server/task_pool.h"

namespace lasp::server {

// Thread-safe.
class CoreMetrics final : public prometheus::Collectable {
 public:
  using Pools = std::vector<std::pair<std::string, const TaskPool*>>;

  // All must outlive it. `pools` by name.
  CoreMetrics(ServerCore* core, Pools pools) : core_(core), pools_(std::move(pools)) {}

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  void AppendJobs(std::vector<prometheus::MetricFamily>* families) const;
  void AppendWorkers(std::vector<prometheus::MetricFamily>* families) const;
  void AppendStreams(std::vector<prometheus::MetricFamily>* families) const;
  void AppendBackups(std::vector<prometheus::MetricFamily>* families) const;
  void AppendQueues(std::vector<prometheus::MetricFamily>* families) const;

  ServerCore* const core_;
  const Pools pools_;
};

}  // namespace lasp::server
