// The SHA-256 of a file.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace lasp::server {

// In hexadecimal digits, as sha256sum prints it. UNAVAILABLE where the file cannot be read.
absl::StatusOr<std::string> FileDigest(const std::string& path);

}  // namespace lasp::server
