#include "proto/rpc/credential_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace lasp {
namespace {

constexpr off_t kMaxBytes = 1 << 20;

absl::Status Wrong(absl::string_view flag, const std::string& path, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat("--", flag, ": ", path, " ", problem));
}

std::string CannotBeRead(int error) {
  return absl::StrCat("cannot be read: ", std::strerror(error));  // NOLINT(concurrency-mt-unsafe)
}

bool IsOwnGroup(gid_t group) {
  if (group == getegid()) {
    return true;
  }
  std::vector<gid_t> groups(static_cast<size_t>(std::max(getgroups(0, nullptr), 0)));
  const int count = getgroups(static_cast<int>(groups.size()), groups.data());
  return count > 0 &&
         std::find(groups.begin(), groups.begin() + count, group) != groups.begin() + count;
}

bool HasRightRights(const struct stat& file) {
  const mode_t others = file.st_mode & (S_IRWXG | S_IRWXO);
  const bool given =
      others == S_IRGRP && file.st_uid == 0 && geteuid() != 0 && IsOwnGroup(file.st_gid);
  return others == 0 || given;
}

absl::StatusOr<std::string> Read(absl::string_view flag, const std::string& path, bool secret) {
  // O_NONBLOCK: opening a pipe must not wait for its writer.
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) {
    const int error = errno;
    return error == ENOENT
               ? absl::NotFoundError(absl::StrCat("--", flag, ": there is no file ", path))
               : Wrong(flag, path, CannotBeRead(error));
  }
  struct stat file = {};
  std::string problem;
  std::string text;
  if (fstat(descriptor, &file) != 0 || !S_ISREG(file.st_mode)) {
    problem = "is no file";
  } else if (file.st_size > kMaxBytes) {
    problem = absl::StrCat("has ", file.st_size, " bytes, more than ", kMaxBytes);
  } else if (secret && !HasRightRights(file)) {
    problem =
        absl::StrFormat("has the rights %04o: others than its owner must have none (chmod 600)",
                        file.st_mode & 07777);
  } else {
    text.resize(static_cast<size_t>(file.st_size));
    size_t filled = 0;
    ssize_t got = 1;
    while (filled < text.size() && got != 0 && problem.empty()) {
      got = read(descriptor, text.data() + filled, text.size() - filled);
      if (got > 0) {
        filled += static_cast<size_t>(got);
      } else if (got < 0 && errno != EINTR) {
        problem = CannotBeRead(errno);
      }
    }
    text.resize(filled);
  }
  close(descriptor);
  if (!problem.empty()) {
    return Wrong(flag, path, problem);
  }
  return text;
}

}  // namespace

FileStamp StampOf(const std::string& path) {
  struct stat file = {};
  if (stat(path.c_str(), &file) != 0) {
    return {};
  }
  constexpr int64_t kSecond = 1'000'000'000;
  return {.device = file.st_dev,
          .inode = file.st_ino,
          .size = file.st_size,
          .mode = file.st_mode,
          .modified_ns = file.st_mtim.tv_sec * kSecond + file.st_mtim.tv_nsec,
          .changed_ns = file.st_ctim.tv_sec * kSecond + file.st_ctim.tv_nsec};
}

absl::StatusOr<std::string> ReadCredential(absl::string_view flag, const std::string& path) {
  return Read(flag, path, /*secret=*/false);
}

absl::StatusOr<std::string> ReadSecret(absl::string_view flag, const std::string& path) {
  return Read(flag, path, /*secret=*/true);
}

}  // namespace lasp
