// Folders of checkpoints that ranks make beneath --checkpoint_root.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/spec/unique_fd.h"

namespace lasp::worker {

// A folder beneath `root`, as OpenFolderBeneath (proto/checkpoint) opens it, made where it is
// missing, and followed through no link at all.
absl::StatusOr<UniqueFd> MakeFolders(const std::string& root, const std::string& folder);

// The folder `name` in `parent`, for its owner alone, made where it is missing; it is there for
// good when this returns. `path` names it in errors.
absl::StatusOr<UniqueFd> MakeFolder(const UniqueFd& parent, const std::string& name,
                                    absl::string_view path);

}  // namespace lasp::worker
