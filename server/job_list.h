// Pages of jobs.
#pragma once

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "lasp/v1/training_job_service.pb.h"
#include "server/grant.h"
#include "server/job_catalog.h"
#include "server/page_token.h"
#include "server/watch_hub.h"

namespace lasp::server {

// One page of the catalogue. A page begins after the last job of the page before, by its place in
// the order: jobs created, changed or deleted in between are neither the cause of a job shown twice
// nor of one left out, as long as its own place stays. Time grows with the jobs looked at: not for
// a thread that must not wait. It holds only jobs that `grant` shows. INVALID_ARGUMENT names the
// field that is wrong.
absl::StatusOr<v1::ListTrainingJobsResponse> ListJobs(const v1::ListTrainingJobsRequest& request,
                                                      const JobCatalog& jobs,
                                                      const WatchHub& watches,
                                                      const PageTokenCodec& tokens,
                                                      const Grant& grant, absl::Time now);

// Whether the job with this name lies in `project` (or `-`).
bool InProject(absl::string_view job_name, absl::string_view project);

}  // namespace lasp::server
