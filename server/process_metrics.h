// The process metrics every Prometheus client library offers, read from /proc/self at each scrape.
#pragma once

#include <prometheus/collectable.h>

#include <vector>

namespace lasp::server {

// process_cpu_seconds_total, process_resident_memory_bytes, process_virtual_memory_bytes,
// process_open_fds, process_max_fds, process_threads, process_start_time_seconds. Thread-safe.
class ProcessMetrics final : public prometheus::Collectable {
 public:
  std::vector<prometheus::MetricFamily> Collect() const override;
};

}  // namespace lasp::server
