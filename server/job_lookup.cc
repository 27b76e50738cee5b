#include "server/job_lookup.h"

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/resource_name.h"
#include "proto/rpc/status_macros.h"

namespace lasp::server {

absl::StatusOr<JobViewPtr> FindJob(const JobCatalog& jobs, absl::string_view name) {
  LASP_RETURN_IF_ERROR(ParseJobName(name).status());
  JobViewPtr job = jobs.Find(name);
  if (job == nullptr) {
    return JobNotFound(name);
  }
  return job;
}

absl::Status JobNotFound(absl::string_view name) {
  return ErrorWithReason(
      absl::StatusCode::kNotFound,
      absl::StrCat("there is no job ", name, ": list the jobs to see their names"), "JOB_NOT_FOUND",
      {{"name", std::string(name)}});
}

}  // namespace lasp::server
