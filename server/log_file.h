// Reading and writing one file of a log. Errors are those of a store that is not there
// (server/store_error.h), and name the path.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lasp::server {

// At most `size` bytes from `offset`; fewer where the file ends. Takes memory for what the file
// holds, however large `size` is.
absl::StatusOr<std::string> ReadFileRange(const std::string& path, int64_t offset, int64_t size);

// All of `data` at `offset` of the file behind `fd`.
absl::Status WriteAll(int fd, const std::string& path, absl::string_view data, int64_t offset);

// How much of a file of `size` bytes lies behind its last line feed; it looks back over no more
// than `most`. Reads little where the last line is whole, as it nearly always is.
absl::StatusOr<int64_t> CutLineBytes(const std::string& path, int64_t size, int64_t most);

}  // namespace lasp::server
