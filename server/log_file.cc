#include "server/log_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "proto/rpc/status_macros.h"
#include "proto/spec/unique_fd.h"
#include "server/store_error.h"

namespace lasp::server {
namespace {

// Of a log's end, when it is first looked at.
constexpr int64_t kFirstLookBytes = 256;

}  // namespace

absl::StatusOr<std::string> ReadFileRange(const std::string& path, int64_t offset, int64_t size) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) {
    return StoreUnavailable("open", path, errno);
  }
  struct stat file = {};
  if (fstat(fd.get(), &file) != 0) {
    return StoreUnavailable("look at", path, errno);
  }
  // What is asked for may be a range of offsets most of which was never received.
  const int64_t held = std::max<int64_t>(0, file.st_size - offset);
  std::string data(static_cast<size_t>(std::min(size, held)), '\0');
  size_t filled = 0;
  while (filled < data.size()) {
    const ssize_t got = pread(fd.get(), data.data() + filled, data.size() - filled,
                              offset + static_cast<int64_t>(filled));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return StoreUnavailable("read", path, errno);
    }
    if (got == 0) {
      break;
    }
    filled += static_cast<size_t>(got);
  }
  data.resize(filled);
  return data;
}

absl::Status WriteAll(int fd, const std::string& path, absl::string_view data, int64_t offset) {
  while (!data.empty()) {
    const ssize_t put = pwrite(fd, data.data(), data.size(), offset);
    if (put < 0 && errno == EINTR) {
      continue;
    }
    if (put < 0) {
      return StoreUnavailable("write", path, errno);
    }
    data.remove_prefix(static_cast<size_t>(put));
    offset += put;
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> CutLineBytes(const std::string& path, int64_t size, int64_t most) {
  for (int64_t look = kFirstLookBytes;; look *= 16) {
    look = std::min({look, size, most});
    LASP_ASSIGN_OR_RETURN(const std::string tail, ReadFileRange(path, size - look, look));
    const size_t line_feed = tail.rfind('\n');
    if (line_feed != std::string::npos) {
      return static_cast<int64_t>(tail.size() - line_feed - 1);
    }
    if (look == size || look == most) {
      return look;
    }
  }
}

}  // namespace lasp::server
