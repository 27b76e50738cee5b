#include "proto/rpc/disk_metrics.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/disk_space.h"

namespace lasp {
namespace {

prometheus::MetricFamily Gauge(std::string name, const char* help, double value) {
  prometheus::MetricFamily family;
  family.name = std::move(name);
  family.help = help;
  family.type = prometheus::MetricType::Gauge;
  family.metric.emplace_back().gauge.value = value;
  return family;
}

}  // namespace

DiskMetrics::DiskMetrics(std::string prefix, std::string folder)
    : prefix_(std::move(prefix)), folder_(std::move(folder)) {}

std::vector<prometheus::MetricFamily> DiskMetrics::Collect() const {
  const std::optional<DiskSpace> disk = ReadDiskSpace(folder_);
  if (!disk.has_value()) {
    return {};
  }
  return {Gauge(absl::StrCat(prefix_, "_free_bytes"),
                "Free space of the file system that holds this program's folder",
                static_cast<double>(disk->free_bytes)),
          Gauge(absl::StrCat(prefix_, "_size_bytes"),
                "Size of the file system that holds this program's folder",
                static_cast<double>(disk->size_bytes))};
}

}  // namespace lasp
