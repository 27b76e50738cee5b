// What every Prometheus exporter is expected to tell of its own process, and what build it is.
#pragma once

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include <string>
#include <vector>

namespace lasp {

// process_cpu_seconds_total, process_resident_memory_bytes, process_virtual_memory_bytes,
// process_open_fds, process_max_fds, process_threads and process_start_time_seconds, read from
// /proc at each scrape, lasp_build_info{component, version, revision} and lasp_time_seconds.
// Thread-safe.
class ProcessMetrics : public prometheus::Collectable {
 public:
  // `component` is the program, for example lasp-server.
  explicit ProcessMetrics(std::string component);
  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const std::string component_;
};

}  // namespace lasp
