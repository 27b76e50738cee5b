#include "worker/telemetry/host_memory.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>

namespace lasp::worker {

int64_t HostMemoryBytes() {
  const int64_t machine = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
  // In a container its own group is the root of what it sees; "max" is no number.
  std::ifstream file("/sys/fs/cgroup/memory.max");
  int64_t group = 0;
  return file >> group && group > 0 ? std::min(machine, group) : machine;
}

}  // namespace lasp::worker
