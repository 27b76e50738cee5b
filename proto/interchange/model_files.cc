#include "proto/interchange/model_files.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/interchange/model_config_file.h"
#include "proto/rpc/status_macros.h"

namespace lasp {

ModelFileOpener FilesOfFolder(std::string folder) {
  return [folder = std::move(folder)](const std::string& name) -> absl::StatusOr<OpenedFile> {
    OpenedFile file{.path = absl::StrCat(absl::StripSuffix(folder, "/"), "/", name), .fd = {}};
    file.fd = UniqueFd(open(file.path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
    struct stat status = {};
    if (!file.fd.valid() || fstat(file.fd.get(), &status) != 0) {
      return absl::ErrnoToStatus(errno, file.path);
    }
    if (!S_ISREG(status.st_mode)) {
      return absl::InvalidArgumentError(absl::StrCat(file.path, " is not a regular file"));
    }
    return file;
  };
}

ModelFileOpener FilesBeneathRoots(std::string folder, std::vector<std::string> path_roots) {
  return [folder = std::move(folder), path_roots = std::move(path_roots)](
             const std::string& name) -> absl::StatusOr<OpenedFile> {
    const absl::string_view given = absl::StripSuffix(folder, "/");
    LASP_ASSIGN_OR_RETURN(OpenedFile config,
                          OpenBeneathRoots(absl::StrCat(given, "/", kModelConfigFile), path_roots));
    if (name == kModelConfigFile) {
      return config;
    }
    return OpenBeneathRoots(absl::StrCat(absl::StripSuffix(config.path, kModelConfigFile), name),
                            path_roots);
  };
}

}  // namespace lasp
