#include "client/commands/commands.h"
#include "client/error_report.h"
#include "client/job_submission.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {

absl::StatusOr<int> Submit(const SubmitOptions& options, Session* session) {
  if (options.file.empty()) {
    return WithHint(absl::InvalidArgumentError("which job? give its file with -f"),
                    "lasp submit -f job.yaml, or -f - to read the standard input");
  }
  LASP_ASSIGN_OR_RETURN(const JobFile file, ReadJob(options));
  return SubmitJob(options, file, session);
}

}  // namespace lasp::client
