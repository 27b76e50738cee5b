#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/commands/commands.h"
#include "client/exit_code.h"
#include "client/job_list.h"
#include "client/job_view.h"
#include "client/output.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {

absl::StatusOr<int> List(const ListOptions& options, const Words& words, Session* session) {
  if (words == Words{"workers"} || words == Words{"worker"}) {
    return Workers({}, session);
  }
  if (!words.empty() && words != Words{"jobs"} && words != Words{"job"}) {
    return absl::InvalidArgumentError(absl::StrCat("expected jobs or workers, got '", words.front(),
                                                   "'; one job is shown by 'lasp get'"));
  }
  LASP_ASSIGN_OR_RETURN(const JobList list, ListJobs(options, session));
  Console& console = session->console();
  const OutputFormat format = session->options().output;
  if (format == OutputFormat::kName) {
    for (const auto& job : list.jobs) {
      console.Print(job.name() + "\n");
    }
  } else if (!IsTable(format)) {
    console.Print(MessageArray(list.jobs, format));
  } else if (!list.jobs.empty()) {
    console.Print(
        JobTable(list.jobs, {format == OutputFormat::kWide, options.all_projects}, absl::Now())
            .Render(console.Out()));
  } else {
    console.Note(absl::StrCat(
        "no jobs",
        options.all_projects ? ""
                             : absl::StrCat(" in the project '", session->options().project, "'"),
        options.filter.empty() && options.state.empty() && options.labels.empty()
            ? ""
            : " that the filter lets through"));
  }
  if (list.more) {
    console.Note(absl::StrCat("the first ", list.jobs.size(), " jobs; --all shows every one"));
  }
  return kExitOk;
}

}  // namespace lasp::client
