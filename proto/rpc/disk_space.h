// How full the file system under a folder is.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace lasp {

struct DiskSpace {
  // Of what this process may use.
  int64_t free_bytes = 0;
  int64_t size_bytes = 0;
};

// Nothing where it cannot be told. May block as long as the disk does.
std::optional<DiskSpace> ReadDiskSpace(const std::string& folder);

}  // namespace lasp
