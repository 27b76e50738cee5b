#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/commands/commands.h"
#include "client/document.h"
#include "client/exit_code.h"
#include "client/interrupt.h"
#include "client/job_list.h"
#include "client/job_reference.h"
#include "client/job_view.h"
#include "client/number_text.h"
#include "client/output.h"
#include "client/output_table.h"
#include "client/stream_retry.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

using lasp::v1::StepMetrics;
using lasp::v1::TrainingJob;

// Those that hold slots.
constexpr char kActive[] =
    "state!=QUEUED AND state!=SUSPENDED AND state!=SUCCEEDED AND state!=FAILED AND "
    "state!=CANCELLED";
constexpr char kHome[] = "\x1b[H";
constexpr char kClearBelow[] = "\x1b[J";

struct ActiveJob {
  TrainingJob job;
  // The newest step that is known; step 0 where there is none.
  StepMetrics step;
};

absl::StatusOr<std::vector<ActiveJob>> Look(const TopOptions& options, Session* session) {
  ListOptions list;
  list.filter = kActive;
  list.limit = options.limit;
  LASP_ASSIGN_OR_RETURN(JobList jobs, ListJobs(list, session));
  LASP_ASSIGN_OR_RETURN(Connection* const connection, session->Connect());
  std::vector<ActiveJob> active;
  active.reserve(jobs.jobs.size());
  for (TrainingJob& job : jobs.jobs) {
    ActiveJob& entry = active.emplace_back();
    entry.job = std::move(job);
    if (entry.job.progress().step() == 0) {
      continue;
    }
    lasp::v1::QueryMetricsRequest request;
    request.set_name(entry.job.name());
    request.set_from_step(entry.job.progress().step());
    request.set_max_points(1);
    const auto found =
        connection->Call(&connection->metrics(), &lasp::v1::MetricsService::Stub::QueryMetrics,
                         request, kReadDeadline);
    if (absl::IsNotFound(found.status())) {
      continue;  // deleted meanwhile
    }
    LASP_RETURN_IF_ERROR(found.status());
    if (!found->steps().empty()) {
      entry.step = *found->steps().rbegin();
    }
  }
  return active;
}

std::string Share(double seconds, const StepMetrics& step) {
  return step.step_seconds() > 0 ? absl::StrFormat("%.0f%%", 100 * seconds / step.step_seconds())
                                 : "-";
}

Table ActiveTable(const std::vector<ActiveJob>& active) {
  Table table({{"NAME"},
               {"STATE"},
               {"STEP", true},
               {"LOSS", true},
               {"TOKENS/S", true},
               {"TIME", true},
               {"DATA", true},
               {"FWD", true},
               {"BWD", true},
               {"SP WAIT", true},
               {"SYNC", true},
               {"OPT", true}});
  for (const auto& [job, step] : active) {
    const bool trained = step.step() > 0;
    table.AddRow({ShortName(job.name()),
                  {StateName(job.state()), StateStyle(job.state())},
                  absl::StrCat(job.progress().step(), "/", job.spec().max_steps()),
                  trained ? FormatLoss(step.loss()) : "-",
                  trained ? FormatRate(step.tokens_per_second()) : "-",
                  trained ? absl::StrFormat("%.3fs", step.step_seconds()) : "-",
                  Share(step.data_seconds(), step),
                  Share(step.forward_seconds(), step),
                  Share(step.backward_seconds(), step),
                  Share(step.sp_wait_seconds(), step),
                  Share(step.gradient_sync_wait_seconds(), step),
                  Share(step.optimizer_seconds(), step)});
  }
  return table;
}

std::string Summary(const std::vector<ActiveJob>& active, const std::string& project) {
  double tokens_per_second = 0;
  int64_t ranks = 0;
  for (const auto& [job, step] : active) {
    tokens_per_second += step.tokens_per_second();
    ranks += job.placements_size();
  }
  return absl::StrCat(active.size(), active.size() == 1 ? " job" : " jobs", " on ", ranks,
                      ranks == 1 ? " rank" : " ranks", " in the project '", project, "', ",
                      FormatRate(tokens_per_second), " tokens/s\n");
}

std::string Documents(const std::vector<ActiveJob>& active, OutputFormat format) {
  Document array = Document::array();
  for (const auto& [job, step] : active) {
    Document& entry = array.emplace_back(Document::object());
    entry["name"] = job.name();
    entry["state"] = StateName(job.state());
    entry["generation"] = job.generation();
    entry["max_steps"] = job.spec().max_steps();
    entry["metrics"] = step.step() > 0 ? ToDocument(step) : Document();
  }
  return DocumentText(array, format);
}

void Show(const std::vector<ActiveJob>& active, bool redraw, Session* session) {
  Console& console = session->console();
  const OutputFormat format = session->options().output;
  if (format == OutputFormat::kName) {
    for (const ActiveJob& entry : active) {
      console.Print(entry.job.name() + "\n");
    }
  } else if (!IsTable(format)) {
    console.Print(Documents(active, format));
  } else {
    console.Print(absl::StrCat(redraw ? kHome : "", redraw ? kClearBelow : "",
                               Summary(active, session->options().project),
                               active.empty() ? "" : ActiveTable(active).Render(console.Out())));
  }
}

}  // namespace

absl::StatusOr<int> Top(const TopOptions& options, Session* session) {
  const bool live =
      !options.once && session->console().Out().is_tty && IsTable(session->options().output);
  if (!live) {
    LASP_ASSIGN_OR_RETURN(const std::vector<ActiveJob> active, Look(options, session));
    Show(active, false, session);
    return kExitOk;
  }
  LASP_ASSIGN_OR_RETURN(Connection* const connection, session->Connect());
  const InterruptScope scope([] {});
  StreamRetry retry(session, connection);
  do {
    const auto active = Look(options, session);
    if (active.ok()) {
      retry.Heard();
      Show(*active, true, session);
    } else {
      LASP_RETURN_IF_ERROR(retry.BeforeNextTry(active.status()));
    }
  } while (!WaitForInterrupt(options.interval));
  return kExitOk;
}

}  // namespace lasp::client
