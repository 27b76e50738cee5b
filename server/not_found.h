// The answer to whoever names what is not there.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "proto/rpc/error_details.h"

namespace lasp::server {

// NOT_FOUND (reason NOT_FOUND): a job, a worker.
inline absl::Status NotFound(absl::string_view what) {
  return ErrorWithReason(absl::StatusCode::kNotFound, absl::StrCat(what, " does not exist"),
                         "NOT_FOUND", {{"resource", std::string(what)}});
}

// NOT_FOUND (reason CHECKPOINT_NOT_FOUND).
inline absl::Status CheckpointNotFound(absl::string_view name) {
  return ErrorWithReason(
      absl::StatusCode::kNotFound,
      absl::StrCat("there is no ", name, "; `lasp checkpoints list` shows those that are kept"),
      "CHECKPOINT_NOT_FOUND", {{"resource", std::string(name)}});
}

}  // namespace lasp::server
