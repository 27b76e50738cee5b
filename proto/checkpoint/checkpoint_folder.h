// Folders of checkpoints beneath --checkpoint_root, opened so that no link and no name leads out of
// it.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/spec/unique_fd.h"

namespace lasp {

// INVALID_ARGUMENT unless it is a relative path without empty components, `.` and `..`.
absl::Status CheckFolderName(absl::string_view folder);

// A folder beneath `root`, which exists. INVALID_ARGUMENT as CheckFolderName; otherwise the code of
// what the system says.
absl::StatusOr<UniqueFd> OpenFolderBeneath(const std::string& root, const std::string& folder);

}  // namespace lasp
