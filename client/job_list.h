// Lists of jobs, page by page.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/session.h"
#include "lasp/v1/training_job.pb.h"

namespace lasp::client {

struct JobList {
  std::vector<lasp::v1::TrainingJob> jobs;
  // Whether there are more than were asked for.
  bool more = false;
};

// The filter that the flags make together: `--filter`, `--state`, `--label`.
absl::StatusOr<std::string> ListFilter(const ListOptions& options);

absl::StatusOr<JobList> ListJobs(const ListOptions& options, Session* session);

}  // namespace lasp::client
