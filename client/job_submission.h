// From a job file to a job.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/job_file.h"
#include "client/options.h"
#include "client/session.h"

namespace lasp::client {

// The job of options.file with its --set changes. INVALID_ARGUMENT names every wrong field and its
// line.
absl::StatusOr<JobFile> ReadJob(const SubmitOptions& options);

// Says where in the file each wrong field stands, so far as the file names it.
absl::Status PointIntoFile(const absl::Status& status, const JobFile& file);

// Submits it, prints it, and waits for its end where that is asked for: the program's exit code.
absl::StatusOr<int> SubmitJob(const SubmitOptions& options, const JobFile& file, Session* session);

}  // namespace lasp::client
