// The processor time that this process's control groups allow: what a container's limit comes to.
#pragma once

#include <string>

#include "absl/types/optional.h"

namespace lasp::worker {

// Cores' worth of time, the least of the quotas of this process's group and of those above it, at
// least 1; none where nothing is limited or the limits cannot be read (version 1 of control groups
// among it). `self` and `groups` are for tests.
absl::optional<int> CpuQuota(const std::string& self = "/proc/self/cgroup",
                             const std::string& groups = "/sys/fs/cgroup");

}  // namespace lasp::worker
