#include "proto/rpc/disk_metrics.h"

#include <sys/statvfs.h>

#include <utility>

#include "absl/strings/str_cat.h"

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
  struct statvfs disk{};
  if (statvfs(folder_.c_str(), &disk) != 0) {
    return {};
  }
  const auto block = static_cast<double>(disk.f_frsize);
  return {Gauge(absl::StrCat(prefix_, "_free_bytes"),
                "Free space of the file system that holds this program's folder",
                static_cast<double>(disk.f_bavail) * block),
          Gauge(absl::StrCat(prefix_, "_size_bytes"),
                "Size of the file system that holds this program's folder",
                static_cast<double>(disk.f_blocks) * block)};
}

}  // namespace lasp
