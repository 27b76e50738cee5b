#include "proto/spec/path_lookup.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "proto/spec/open_beneath.h"

namespace lasp {
namespace {

absl::Status OpenError(int error, const std::string& path, const std::string& root) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(absl::StrCat(path, " does not exist"));
    case EXDEV:
      return absl::PermissionDeniedError(
          absl::StrCat(path, " leads out of the --path_roots entry ", root,
                       " (symbolic links must be relative and stay beneath it)"));
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(
          absl::StrCat(path, " is not readable: give the service's user read permission"));
    case ELOOP:
      return absl::PermissionDeniedError(
          absl::StrCat(path, " goes through symbolic links that are not followed: name the file"));
    case ENXIO:
    case ENODEV:
      return absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
    case ENAMETOOLONG:
      return absl::InvalidArgumentError(absl::StrCat(path, " is too long a name"));
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return absl::ResourceExhaustedError(
          absl::StrCat("cannot open ", path, ": ", std::generic_category().message(error)));
    default:
      return absl::UnavailableError(
          absl::StrCat("cannot open ", path, ": ", std::generic_category().message(error)));
  }
}

// Opens `relative` beneath `root`.
absl::StatusOr<OpenedFile> OpenInRoot(const std::string& root, const std::string& relative) {
  const UniqueFd folder(open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!folder.valid()) {
    return OpenError(errno, root, root);
  }
  OpenedFile file;
  file.path = absl::StrCat(absl::StripSuffix(root, "/"), "/", relative);
  file.fd = UniqueFd(OpenBeneath(folder.get(), relative));
  if (!file.fd.valid()) {
    return OpenError(errno, file.path, root);
  }
  struct stat status = {};
  if (fstat(file.fd.get(), &status) != 0) {
    return OpenError(errno, file.path, root);
  }
  if (!S_ISREG(status.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path, S_ISDIR(status.st_mode) ? " is a folder: name a file in it"
                                                        : " is not a regular file: name one"));
  }
  return file;
}

// The part of absolute `path` beneath `root`; empty where it lies elsewhere.
std::string RelativeTo(absl::string_view root, absl::string_view path) {
  root = absl::StripSuffix(root, "/");
  if (!absl::ConsumePrefix(&path, root) || !absl::ConsumePrefix(&path, "/")) {
    return "";
  }
  while (absl::ConsumePrefix(&path, "/")) {
  }
  return std::string(path);
}

bool HasParentSegment(absl::string_view path) {
  const std::vector<absl::string_view> parts = absl::StrSplit(path, '/');
  return std::find(parts.begin(), parts.end(), "..") != parts.end();
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ParsePathRoots(absl::string_view flag) {
  std::vector<std::string> roots;
  for (const absl::string_view entry : absl::StrSplit(flag, ',', absl::SkipWhitespace())) {
    std::error_code error;
    const std::filesystem::path root =
        std::filesystem::absolute(std::string(absl::StripAsciiWhitespace(entry)), error)
            .lexically_normal();
    if (error || !std::filesystem::is_directory(root, error)) {
      return absl::InvalidArgumentError(absl::StrCat("--path_roots: '", entry,
                                                     "' is not a folder: create it or leave it "
                                                     "out"));
    }
    roots.push_back(root.string());
  }
  return roots;
}

absl::StatusOr<OpenedFile> OpenBeneathRoots(absl::string_view path,
                                            const std::vector<std::string>& path_roots) {
  if (path.empty() || path.find('\0') != absl::string_view::npos) {
    return absl::InvalidArgumentError("a data path is empty or holds a NUL character");
  }
  if (HasParentSegment(path)) {
    return absl::PermissionDeniedError(absl::StrCat(path,
                                                    " holds '..': name the file from one of "
                                                    "the --path_roots down"));
  }
  if (path_roots.empty()) {
    return absl::PermissionDeniedError(
        absl::StrCat(path,
                     " is not allowed: no folder is (start lasp-server and lasp-worker with "
                     "--path_roots)"));
  }
  const bool absolute = path.front() == '/';
  bool beneath_a_root = !absolute;
  for (const std::string& root : path_roots) {
    const std::string relative = absolute ? RelativeTo(root, path) : std::string(path);
    if (relative.empty()) {
      continue;
    }
    beneath_a_root = true;
    absl::StatusOr<OpenedFile> file = OpenInRoot(root, relative);
    if (file.ok() || !absl::IsNotFound(file.status())) {
      return file;
    }
  }
  if (!beneath_a_root) {
    return absl::PermissionDeniedError(absl::StrCat(path, " lies outside the allowed folders ",
                                                    absl::StrJoin(path_roots, ", "),
                                                    ": move it there or name another"));
  }
  return absl::NotFoundError(absl::StrCat(path, " does not exist under ",
                                          absl::StrJoin(path_roots, ", "),
                                          ": check the name, or copy the file there"));
}

}  // namespace lasp
