// A copy of a SQLite file as it is at one moment, while others write to it.
#pragma once

#include <atomic>
#include <string>

#include "absl/status/status.h"

namespace lasp::server {

// Copies the database at `from` into the new file `to`, which needs no other file beside it.
// Writers of `from` go on meanwhile; its write-ahead log grows until the copy is done.
// Blocks. UNAVAILABLE (SHUTTING_DOWN) soon after `stop` is set, and where a file cannot be read or
// written.
absl::Status CopyDatabase(const std::string& from, const std::string& to,
                          const std::atomic<bool>& stop);

}  // namespace lasp::server
