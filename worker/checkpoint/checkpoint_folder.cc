#include "worker/checkpoint/checkpoint_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/checkpoint/checkpoint_folder.h"
#include "proto/rpc/status_macros.h"

namespace lasp::worker {
namespace {

constexpr int kFolderFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

}  // namespace

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
