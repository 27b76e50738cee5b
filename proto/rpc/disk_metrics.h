// How full the disk under a program's folder is.
#pragma once

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include <string>
#include <vector>

namespace lasp {

// {prefix}_free_bytes (of what this process may use) and {prefix}_size_bytes of the file system
// that holds `folder`, looked up at each scrape; no series where it cannot be. Thread-safe.
class DiskMetrics : public prometheus::Collectable {
 public:
  DiskMetrics(std::string prefix, std::string folder);
  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const std::string prefix_;
  const std::string folder_;
};

}  // namespace lasp
