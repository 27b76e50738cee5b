// Files that are there whole or not at all, also after a loss of power.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace lasp::server {

// A new file that only its owner may read, in the place of what was there. UNAVAILABLE where it
// cannot be written.
absl::Status CreatePrivateFile(const std::string& path, absl::string_view text = "");

// Renames the file to `path` once it is on the disk, and waits until its name is too.
absl::Status PutInPlace(const std::string& file, const std::string& path);

}  // namespace lasp::server
