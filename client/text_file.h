// What a user names as a file.
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"

namespace lasp::client {

// The whole of `path`, or of the standard input for "-". NOT_FOUND, PERMISSION_DENIED,
// INVALID_ARGUMENT for a folder, OUT_OF_RANGE beyond max_bytes.
absl::StatusOr<std::string> ReadTextFile(const std::string& path, size_t max_bytes);

}  // namespace lasp::client
