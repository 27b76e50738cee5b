#include "proto/spec/file_reader.h"

#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace lasp {

absl::Status FileReader::ReadAt(int64_t offset, int64_t count, void* out) const {
  auto* bytes = static_cast<char*>(out);
  while (count > 0) {
    const ssize_t got = pread(fd_, bytes, static_cast<size_t>(count), offset);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return absl::DataLossError(
          absl::StrCat("cannot read ", path_, ": ", std::generic_category().message(errno)));
    }
    if (got == 0) {
      return absl::DataLossError(
          absl::StrCat(path_, " is truncated: it ends at byte ", offset, ", copy it again"));
    }
    bytes += got;
    offset += got;
    count -= got;
  }
  return absl::OkStatus();
}

}  // namespace lasp
