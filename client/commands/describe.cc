#include "absl/time/clock.h"
#include "client/commands/commands.h"
#include "client/exit_code.h"
#include "client/job_description.h"
#include "client/job_reference.h"
#include "client/output.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {

absl::StatusOr<int> Describe(const Words& words, Session* session) {
  LASP_ASSIGN_OR_RETURN(const std::string reference, JobArgument(words));
  LASP_ASSIGN_OR_RETURN(const lasp::v1::TrainingJob job, ResolveJob(reference, session));
  PrintMessage(
      job, job.name(), [&] { return DescribeJob(job, absl::Now(), session->console().Out()); },
      session);
  return kExitOk;
}

}  // namespace lasp::client
