// How a person names a checkpoint.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/session.h"
#include "lasp/v1/checkpoint.pb.h"

namespace lasp::client {

// All of a job, by its resource name; newest first.
absl::StatusOr<std::vector<lasp::v1::Checkpoint>> AllCheckpoints(const std::string& job,
                                                                 Session* session);

// The one that `words` say: NAME of a job, and perhaps STEP, or `latest`; by default the newest
// committed one. NOT_FOUND, or INVALID_ARGUMENT.
absl::StatusOr<lasp::v1::Checkpoint> TheCheckpoint(const std::vector<std::string>& words,
                                                   Session* session);

}  // namespace lasp::client
