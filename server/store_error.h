// Failures of what the coordinator keeps on disk, as its clients are told of them.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace lasp::server {

// UNAVAILABLE with reason STORE_UNAVAILABLE: `path` cannot be read or written now because of
// `cause`, and can be once the disk, or the rights on it, are mended. `doing` is, for example,
// "open".
absl::Status StoreUnavailable(absl::string_view doing, const std::string& path,
                              absl::string_view cause);
// The same, of an errno.
absl::Status StoreUnavailable(absl::string_view doing, const std::string& path, int error);

// DATA_LOSS with reason STORE_DAMAGED: `path` holds what the coordinator never wrote.
absl::Status StoreDamaged(const std::string& path, absl::string_view cause);

}  // namespace lasp::server
