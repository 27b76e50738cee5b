#include "worker/checkpoint/free_memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>

namespace lasp::worker {
namespace {

constexpr int64_t kKibibyte = 1024;

std::optional<int64_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  int64_t number = 0;
  if (file >> number) {
    return number;
  }
  return std::nullopt;  // missing, or "max"
}

int64_t HostBytes(const std::string& proc) {
  std::ifstream file(proc + "/meminfo");
  std::string name;
  int64_t kibibytes = 0;
  std::string unit;
  while (file >> name >> kibibytes) {
    std::getline(file, unit);
    if (name == "MemAvailable:") {
      return kibibytes * kKibibyte;
    }
  }
  return 0;
}

int64_t GroupBytes(const std::string& limit, const std::string& usage) {
  const std::optional<int64_t> most = ReadNumber(limit);
  const std::optional<int64_t> used = ReadNumber(usage);
  return most.has_value() && used.has_value() ? std::max<int64_t>(0, *most - *used)
                                              : std::numeric_limits<int64_t>::max();
}

}  // namespace

int64_t FreeMemoryBytes() { return FreeMemoryBytes("/proc", "/sys/fs/cgroup"); }

int64_t FreeMemoryBytes(const std::string& proc, const std::string& cgroup) {
  return std::min({HostBytes(proc), GroupBytes(cgroup + "/memory.max", cgroup + "/memory.current"),
                   GroupBytes(cgroup + "/memory/memory.limit_in_bytes",
                              cgroup + "/memory/memory.usage_in_bytes")});
}

}  // namespace lasp::worker
