#include "server/durable_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "proto/rpc/status_macros.h"
#include "server/store_error.h"

namespace lasp::server {
namespace {

absl::Status Sync(const std::string& path, int flags) {
  const int descriptor = open(path.c_str(), flags | O_CLOEXEC);
  if (descriptor < 0) {
    return StoreUnavailable("open", path, errno);
  }
  const int error = fsync(descriptor) == 0 ? 0 : errno;
  close(descriptor);
  return error == 0 ? absl::OkStatus() : StoreUnavailable("write", path, error);
}

}  // namespace

absl::Status CreatePrivateFile(const std::string& path, absl::string_view text) {
  unlink(path.c_str());
  const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (descriptor < 0) {
    return StoreUnavailable("write", path, errno);
  }
  const bool written =
      write(descriptor, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  const int error = written ? 0 : errno;
  close(descriptor);
  return written ? absl::OkStatus() : StoreUnavailable("write", path, error);
}

absl::Status PutInPlace(const std::string& file, const std::string& path) {
  LASP_RETURN_IF_ERROR(Sync(file, O_RDONLY));
  if (rename(file.c_str(), path.c_str()) != 0) {
    return StoreUnavailable("write", path, errno);
  }
  const size_t slash = path.rfind('/');
  return Sync(slash == std::string::npos ? "." : path.substr(0, slash + 1), O_RDONLY | O_DIRECTORY);
}

}  // namespace lasp::server
