#include "proto/rpc/disk_space.h"

#include <sys/statvfs.h>

namespace lasp {

std::optional<DiskSpace> ReadDiskSpace(const std::string& folder) {
  struct statvfs disk{};
  if (statvfs(folder.c_str(), &disk) != 0) {
    return std::nullopt;
  }
  const auto block = static_cast<int64_t>(disk.f_frsize);
  return DiskSpace{.free_bytes = static_cast<int64_t>(disk.f_bavail) * block,
                   .size_bytes = static_cast<int64_t>(disk.f_blocks) * block};
}

}  // namespace lasp
