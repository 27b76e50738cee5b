#include "proto/spec/file_reader.h"

#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"

namespace lasp {

absl::StatusOr<int64_t> ReadUpTo(int fd, int64_t offset, int64_t count, void* out) {
  auto* const bytes = static_cast<char*>(out);
  int64_t done = 0;
  while (done < count) {
    const ssize_t got = pread(fd, bytes + done, static_cast<size_t>(count - done), offset + done);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return absl::ErrnoToStatus(errno, "");
    }
    if (got == 0) {
      break;
    }
    done += got;
  }
  return done;
}

absl::Status FileReader::ReadAt(int64_t offset, int64_t count, void* out) const {
  const absl::StatusOr<int64_t> got = ReadUpTo(fd_, offset, count, out);
  if (!got.ok()) {
    return absl::DataLossError(absl::StrCat("cannot read ", path_, ": ", got.status().message()));
  }
  if (*got < count) {
    return absl::DataLossError(
        absl::StrCat(path_, " is truncated: it ends at byte ", offset + *got, ", copy it again"));
  }
  return absl::OkStatus();
}

}  // namespace lasp
