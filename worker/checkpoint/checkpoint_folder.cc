#include "worker/checkpoint/checkpoint_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/rpc/status_macros.h"
#include "proto/spec/open_beneath.h"

namespace lasp::worker {
namespace {

constexpr int kFolderFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

}  // namespace

absl::Status CheckFolderName(absl::string_view folder) {
  const std::vector<std::string> parts = absl::StrSplit(std::string(folder), '/');
  for (const std::string& part : parts) {
    if (part.empty() || part == "." || part == ".." || part.find('\0') != std::string::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("the checkpoint folder '", folder, "' is not a path of plain names"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> OpenFolderBeneath(const std::string& root, const std::string& folder) {
  LASP_RETURN_IF_ERROR(CheckFolderName(folder));
  const UniqueFd root_fd(open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root_fd.valid()) {
    return absl::ErrnoToStatus(errno, absl::StrCat("opening --checkpoint_root ", root));
  }
  UniqueFd opened(OpenBeneath(root_fd.get(), folder));
  if (!opened.valid()) {
    return absl::ErrnoToStatus(errno, absl::StrCat("opening ", root, "/", folder));
  }
  struct stat status = {};
  if (fstat(opened.get(), &status) != 0 || !S_ISDIR(status.st_mode)) {
    return absl::ErrnoToStatus(ENOTDIR, absl::StrCat("opening ", root, "/", folder));
  }
  return opened;
}

absl::StatusOr<UniqueFd> MakeFolders(const std::string& root, const std::string& folder) {
  LASP_RETURN_IF_ERROR(CheckFolderName(folder));
  UniqueFd parent(open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!parent.valid()) {
    return absl::ErrnoToStatus(errno, absl::StrCat("opening --checkpoint_root ", root));
  }
  std::string path = root;
  for (const std::string& part : std::vector<std::string>(absl::StrSplit(folder, '/'))) {
    absl::StrAppend(&path, "/", part);
    LASP_ASSIGN_OR_RETURN(parent, MakeFolder(parent, part, path));
  }
  return parent;
}

absl::StatusOr<UniqueFd> MakeFolder(const UniqueFd& parent, const std::string& name,
                                    absl::string_view path) {
  if (mkdirat(parent.get(), name.c_str(), S_IRWXU) != 0 && errno != EEXIST) {
    return absl::ErrnoToStatus(errno, absl::StrCat("making ", path));
  }
  // Whoever made it may have died before this.
  if (fsync(parent.get()) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("syncing the folder of ", path));
  }
  UniqueFd folder(openat(parent.get(), name.c_str(), kFolderFlags));
  if (!folder.valid()) {
    return absl::ErrnoToStatus(errno, absl::StrCat("opening ", path));
  }
  return folder;
}

}  // namespace lasp::worker
