#include "proto/checkpoint/checkpoint_folder.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/rpc/status_macros.h"
#include "proto/spec/open_beneath.h"

namespace lasp {

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

}  // namespace lasp
