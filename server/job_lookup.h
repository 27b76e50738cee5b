// Finding the job a request names.
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/job_catalog.h"

namespace lasp::server {

// INVALID_ARGUMENT for what is no job name, NOT_FOUND (reason JOB_NOT_FOUND) where there is no such
// job.
absl::StatusOr<JobViewPtr> FindJob(const JobCatalog& jobs, absl::string_view name);

absl::Status JobNotFound(absl::string_view name);

}  // namespace lasp::server
