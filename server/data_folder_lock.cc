#include "server/data_folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/status_macros.h"

namespace lasp::server {
namespace {

std::string ErrnoText(int code) {
  std::array<char, 128> buffer{};
  return strerror_r(code, buffer.data(), buffer.size());
}

std::string ReadHolder(int descriptor) {
  std::array<char, 256> buffer{};
  const ssize_t size = pread(descriptor, buffer.data(), buffer.size(), 0);
  return std::string(
      absl::StripAsciiWhitespace(absl::string_view(buffer.data(), size > 0 ? size : 0)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<DataFolderLock>> DataFolderLock::Acquire(
    const std::string& data_dir) {
  if (mkdir(data_dir.c_str(), 0700) != 0 && errno != EEXIST) {
    return absl::FailedPreconditionError(
        absl::StrCat("the data folder ", data_dir, " cannot be created: ", ErrnoText(errno)));
  }
  const std::string path = absl::StrCat(data_dir, "/lock");
  const int descriptor = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor < 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " cannot be opened: ", ErrnoText(errno)));
  }
  if (flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    const std::string holder = ReadHolder(descriptor);
    close(descriptor);
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition,
                           absl::StrCat("the data folder ", data_dir, " is held by ",
                                        holder.empty() ? "another process" : holder,
                                        ": stop that server or choose another --data_dir"),
                           "DATA_FOLDER_LOCKED", {{"data_dir", data_dir}});
  }
  std::unique_ptr<DataFolderLock> lock(new DataFolderLock(path, descriptor));
  LASP_RETURN_IF_ERROR(lock->Write(absl::StrCat("lasp-server pid ", getpid(), "\n")));
  return lock;
}

// The file stays: unlinking it would let two processes lock two files of one name.
DataFolderLock::~DataFolderLock() {
  if (ftruncate(descriptor_, 0) != 0) {
    // Stale text is harmless: only the lock counts.
  }
  close(descriptor_);
}

absl::Status DataFolderLock::Publish(const std::string& api_address) {
  return Write(absl::StrCat("lasp-server pid ", getpid(), " at ", api_address, "\n"));
}

absl::Status DataFolderLock::Write(const std::string& text) {
  if (ftruncate(descriptor_, 0) != 0 ||
      pwrite(descriptor_, text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) {
    return absl::InternalError(absl::StrCat(path_, " cannot be written: ", ErrnoText(errno)));
  }
  return absl::OkStatus();
}

}  // namespace lasp::server
