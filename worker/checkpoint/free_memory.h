// How much memory this process may still take.
#pragma once

#include <cstdint>
#include <string>

namespace lasp::worker {

// Bytes: the least of what the host has to give and what the process's control group (of either
// version, as a container sees it) is allowed. What it holds of files alone can be had back, and
// counts as free. 0 where it cannot be told.
int64_t FreeMemoryBytes();

// The same, of other roots for /proc and /sys/fs/cgroup (tests).
int64_t FreeMemoryBytes(const std::string& proc, const std::string& cgroup);

}  // namespace lasp::worker
