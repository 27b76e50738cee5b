#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "client/commands/commands.h"
#include "client/exit_code.h"
#include "client/job_reference.h"
#include "client/job_view.h"
#include "client/output.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {

absl::StatusOr<int> Get(const Words& words, Session* session) {
  const std::string first = words.empty() ? "" : words.front();
  if (first == "worker" || first == "workers" || absl::StartsWith(first, "worker/") ||
      absl::StartsWith(first, "workers/")) {
    const bool list = words.size() == 1 && !absl::StrContains(first, '/');
    return Workers(list ? Words{} : words, session);
  }
  if (words.size() == 1 && (first == "job" || first == "jobs")) {
    return List({}, {}, session);
  }
  LASP_ASSIGN_OR_RETURN(const std::string reference, JobArgument(words));
  LASP_ASSIGN_OR_RETURN(const lasp::v1::TrainingJob job, ResolveJob(reference, session));
  PrintMessage(
      job, job.name(),
      [&] {
        return JobTable({job}, {session->options().output == OutputFormat::kWide}, absl::Now())
            .Render(session->console().Out());
      },
      session);
  return kExitOk;
}

}  // namespace lasp::client
