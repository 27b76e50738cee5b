// Errors of the disk that this program runs on: none of the coordinator's.
#pragma once

#include "absl/status/status.h"

namespace lasp::client {

// `status`, of writing a file or a folder here, with a code whose exit code tells users so:
// INVALID_ARGUMENT where the path does not do, which is a wrong command line; DATA_LOSS, an
// unforeseen error, where the disk is full or broken. ALREADY_EXISTS and INVALID_ARGUMENT stay as
// they are.
absl::Status OwnDiskError(const absl::Status& status);

}  // namespace lasp::client
