#include "proto/spec/open_beneath.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "absl/strings/str_split.h"
#include "proto/spec/unique_fd.h"

namespace lasp {
namespace {

constexpr int kOpenFlags = O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY;

int OpenWithoutLinks(int root_fd, const std::string& relative) {
  const std::vector<std::string> parts = absl::StrSplit(relative, '/', absl::SkipEmpty());
  UniqueFd folder;
  int at = root_fd;
  for (size_t i = 0; i < parts.size(); ++i) {
    const bool last = i + 1 == parts.size();
    if (parts[i] == "..") {
      errno = EXDEV;
      return -1;
    }
    const int flags = last ? kOpenFlags : O_PATH | O_DIRECTORY | O_CLOEXEC;
    const int fd = openat(at, parts[i].c_str(), flags | O_NOFOLLOW);
    if (fd < 0 || last) {
      return fd;
    }
    folder = UniqueFd(fd);
    at = fd;
  }
  errno = ENOENT;
  return -1;
}

}  // namespace

int OpenBeneath(int root_fd, const std::string& relative) {
  open_how how = {};
  how.flags = kOpenFlags;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  for (int attempt = 0; attempt < 8; ++attempt) {
    const auto fd =
        static_cast<int>(syscall(SYS_openat2, root_fd, relative.c_str(), &how, sizeof(how)));
    // EAGAIN: a rename raced with the walk.
    if (fd >= 0 || errno != EAGAIN) {
      return fd < 0 && (errno == ENOSYS || errno == EPERM) ? OpenWithoutLinks(root_fd, relative)
                                                           : fd;
    }
  }
  return -1;
}

}  // namespace lasp
