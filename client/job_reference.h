// How a person names a job or a worker.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/session.h"
#include "lasp/v1/training_job.pb.h"

namespace lasp::client {

// The id in a job's or worker's name, the last part of it.
std::string ShortName(absl::string_view name);

// `words` is what stands after the command: NAME, `job NAME`, `job/NAME` or a full resource name.
// Gives the reference alone. INVALID_ARGUMENT where none or too many are given.
absl::StatusOr<std::string> JobArgument(const std::vector<std::string>& words);

// The job that a reference means: by its full name or its id, else by the only id of the project
// that begins with it. NOT_FOUND, or INVALID_ARGUMENT naming the candidates where there are
// several.
absl::StatusOr<lasp::v1::TrainingJob> ResolveJob(const std::string& reference, Session* session);

// The job of exactly this name or id.
absl::StatusOr<lasp::v1::TrainingJob> ResolveExactJob(const std::string& reference,
                                                      Session* session);

// `workers/{worker}` of W, `worker W`, `worker/W` or `workers/W`.
absl::StatusOr<std::string> WorkerArgument(const std::vector<std::string>& words);

}  // namespace lasp::client
