// Data paths and the folders that an operator allows them to lie in (--path_roots).
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/spec/unique_fd.h"

namespace lasp {

// The value of --path_roots: folders, separated by commas, made absolute. Empty for an empty flag.
// INVALID_ARGUMENT where one is not a folder.
absl::StatusOr<std::vector<std::string>> ParsePathRoots(absl::string_view flag);

// A regular file, open for reading.
struct OpenedFile {
  // Absolute, for people.
  std::string path;
  UniqueFd fd;
};

// Opens the regular file that `path` names: a relative path is looked up under each root in order,
// an absolute one must lie beneath a root. Nothing outside the roots is opened, neither through
// `..` nor through symbolic links (links that stay beneath their root are followed). Never blocks
// on a FIFO or a device. Empty `path_roots` allow nothing. NOT_FOUND, PERMISSION_DENIED (not
// allowed by the roots, or not readable), INVALID_ARGUMENT (not a regular file). Thread-safe.
absl::StatusOr<OpenedFile> OpenBeneathRoots(absl::string_view path,
                                            const std::vector<std::string>& path_roots);

}  // namespace lasp
