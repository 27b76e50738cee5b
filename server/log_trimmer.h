// Keeps the logs of all ranks together within a size.
#pragma once

#include <cstdint>
#include <string>

#include "server/log_store.h"

namespace lasp::server {

// Removes the segments that were written to longest ago from `logs`, which lie in `directory`,
// until at most `max_bytes` are left. Looks at every file: not for threads that others wait for.
void TrimLogs(const std::string& directory, int64_t max_bytes, LogStore* logs);

}  // namespace lasp::server
