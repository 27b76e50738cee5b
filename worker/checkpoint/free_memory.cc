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

// Of files on disks, read or written: counted as used, and given back when memory runs short. What
// lies in a tmpfs is not among it.
int64_t CacheBytes(const std::string& stat, const std::string& prefix) {
  std::ifstream file(stat);
  std::string name;
  int64_t bytes = 0;
  int64_t sum = 0;
  while (file >> name >> bytes) {
    if (name == prefix + "inactive_file" || name == prefix + "active_file") {
      sum += bytes;
    }
  }
  return sum;
}

// Where a version of control groups says what a group is allowed, what it uses, and of what.
struct GroupFiles {
  std::string limit;
  std::string usage;
  std::string stat;
  std::string stat_prefix;
};

int64_t GroupBytes(const GroupFiles& files) {
  const std::optional<int64_t> most = ReadNumber(files.limit);
  const std::optional<int64_t> used = ReadNumber(files.usage);
  if (!most.has_value() || !used.has_value()) {
    return std::numeric_limits<int64_t>::max();
  }
  // Read one after another: the cache may have grown beyond what was used.
  const int64_t kept = std::max<int64_t>(0, *used - CacheBytes(files.stat, files.stat_prefix));
  return std::max<int64_t>(0, *most - kept);
}

}  // namespace

int64_t FreeMemoryBytes() { return FreeMemoryBytes("/proc", "/sys/fs/cgroup"); }

int64_t FreeMemoryBytes(const std::string& proc, const std::string& cgroup) {
  return std::min({HostBytes(proc),
                   GroupBytes({.limit = cgroup + "/memory.max",
                               .usage = cgroup + "/memory.current",
                               .stat = cgroup + "/memory.stat",
                               .stat_prefix = ""}),
                   GroupBytes({.limit = cgroup + "/memory/memory.limit_in_bytes",
                               .usage = cgroup + "/memory/memory.usage_in_bytes",
                               .stat = cgroup + "/memory/memory.stat",
                               .stat_prefix = "total_"})});
}

}  // namespace lasp::worker
