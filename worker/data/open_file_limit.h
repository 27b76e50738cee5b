// Corpora of a thousand shards need more descriptors than the 1,024 that most sessions start with.
#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace lasp::worker {

// Raises this process's soft limit of open files, where needed, so that `count` more files fit
// beside all that is open and everything else. RESOURCE_EXHAUSTED where the hard limit forbids it,
// saying how to raise that.
absl::Status AllowOpenFiles(int64_t count);

}  // namespace lasp::worker
