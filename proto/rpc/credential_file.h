// Files with keys, certificates and tokens: read whole, only where their rights are right, and
// watched by what the file system says of them.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lasp {

// Which contents a path leads to: differs when the file was written, replaced, or its rights were
// changed. Links are followed, as Kubernetes swaps its secrets by one.
struct FileStamp {
  dev_t device = 0;
  ino_t inode = 0;
  off_t size = 0;
  mode_t mode = 0;
  int64_t modified_ns = 0;
  int64_t changed_ns = 0;

  bool operator==(const FileStamp&) const = default;
};

// All zero where there is no file.
FileStamp StampOf(const std::string& path);

// A certificate. `flag`, which named the path, begins the error: NOT_FOUND, or INVALID_ARGUMENT for
// what is no file, cannot be read, or is above 1 MiB.
absl::StatusOr<std::string> ReadCredential(absl::string_view flag, const std::string& path);

// A key or tokens. As above, and INVALID_ARGUMENT unless the owner alone has rights. The group may
// read what root owns and gives to one of this process's groups, as Kubernetes does with secrets.
absl::StatusOr<std::string> ReadSecret(absl::string_view flag, const std::string& path);

}  // namespace lasp
