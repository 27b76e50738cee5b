#include "worker/agent/cpu_quota.h"

#include <algorithm>
#include <cstdint>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"

namespace lasp::worker {
namespace {

// The path in the one hierarchy of version 2, "0::/…"; empty where there is none.
std::string OwnGroup(const std::string& self) {
  std::ifstream file(self);
  std::string line;
  while (std::getline(file, line)) {
    if (absl::StartsWith(line, "0::/")) {
      return line.substr(3);
    }
  }
  return "";
}

// cpu.max holds "QUOTA PERIOD" in microseconds, or "max PERIOD".
absl::optional<int> QuotaOf(const std::string& group) {
  std::ifstream file(group + "/cpu.max");
  std::string quota_text;
  int64_t quota = 0;
  int64_t period = 0;
  if (!(file >> quota_text >> period) || !absl::SimpleAtoi(quota_text, &quota) || quota <= 0 ||
      period <= 0) {
    return absl::nullopt;
  }
  return static_cast<int>(std::max<int64_t>(1, quota / period));
}

}  // namespace

absl::optional<int> CpuQuota(const std::string& self, const std::string& groups) {
  absl::optional<int> least;
  std::string group = OwnGroup(self);
  while (!group.empty()) {
    const absl::optional<int> quota = QuotaOf(groups + group);
    if (quota && (!least || *quota < *least)) {
      least = quota;
    }
    group = group == "/" ? "" : group.substr(0, std::max<size_t>(1, group.rfind('/')));
  }
  return least;
}

}  // namespace lasp::worker
