#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/commands/commands.h"
#include "client/event_stream.h"
#include "client/exit_code.h"
#include "client/interrupt.h"
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

// The most the coordinator gives in one answer.
constexpr int kMostPoints = 10'000;
// What a person can take in.
constexpr int kTerminalPoints = 40;

Table StepTable(const std::vector<StepMetrics>& steps, bool wide) {
  std::vector<Column> columns = {{"STEP", true, 7},      {"LOSS", true, 9},
                                 {"GRAD NORM", true, 9}, {"LEARNING RATE", true, 13},
                                 {"TOKENS/S", true, 8},  {"EVAL LOSS", true, 9}};
  if (wide) {
    for (const char* header : {"STEP TIME", "SP WAIT", "SYNC WAIT", "TOKENS"}) {
      columns.push_back({header, true, 9});
    }
    columns.push_back({"GEN", true, 3});
  }
  Table table(std::move(columns));
  for (const StepMetrics& step : steps) {
    std::vector<Cell> row = {
        absl::StrCat(step.step(), step.skipped() ? "!" : ""),
        absl::StrFormat("%.5f", step.loss()),
        absl::StrFormat("%.4f", step.gradient_norm()),
        absl::StrFormat("%.3e", step.learning_rate()),
        FormatRate(step.tokens_per_second()),
        step.has_eval_loss() ? absl::StrFormat("%.5f", step.eval_loss()) : "-"};
    if (wide) {
      row.emplace_back(absl::StrFormat("%.3fs", step.step_seconds()));
      row.emplace_back(absl::StrFormat("%.3fs", step.sp_wait_seconds()));
      row.emplace_back(absl::StrFormat("%.3fs", step.gradient_sync_wait_seconds()));
      row.emplace_back(FormatRate(static_cast<double>(step.token_count())));
      row.emplace_back(absl::StrCat(step.generation()));
    }
    table.AddRow(std::move(row));
  }
  return table;
}

// Prints the steps of one message, as far as they are asked for. Returns whether there may be more.
bool PrintSteps(const lasp::v1::StreamMetricsResponse& response, const MetricsOptions& options,
                bool first, Session* session) {
  const OutputFormat format = session->options().output;
  Console& console = session->console();
  std::vector<StepMetrics> steps;
  bool more = true;
  for (const StepMetrics& step : response.steps()) {
    more = options.to_step == 0 || step.step() < options.to_step;
    if (options.to_step > 0 && step.step() > options.to_step) {
      continue;
    }
    steps.push_back(step);
    if (!IsTable(format)) {
      console.Print(MessageLine(step));
    }
  }
  if (IsTable(format) && !steps.empty()) {
    console.Print(StepTable(steps, format == OutputFormat::kWide).Render(console.Out(), first));
  }
  return more;
}

absl::StatusOr<int> FollowMetrics(const MetricsOptions& options, const std::string& name,
                                  Session* session) {
  constexpr absl::Duration kPatience = absl::Minutes(1);
  LASP_ASSIGN_OR_RETURN(Connection* const connection, session->Connect());
  const InterruptScope scope([] {});
  StreamRetry retry(session, connection);
  lasp::v1::StreamMetricsRequest request;
  request.set_name(name);
  request.set_from_step(options.from_step);
  bool first = true;
  while (true) {
    EventStream<lasp::v1::StreamMetricsResponse> stream(
        [&](grpc::ClientContext* context, grpc::CompletionQueue* queue) {
          return connection->metrics().PrepareAsyncStreamMetrics(context, request, queue);
        });
    for (StreamEvent event = stream.Next(kPatience); event != StreamEvent::kEnd;
         event = stream.Next(kPatience)) {
      if (event == StreamEvent::kTimeout || stream.message().steps().empty()) {
        continue;
      }
      retry.Heard();
      const StepMetrics& last = *stream.message().steps().rbegin();
      request.set_from_step(last.step() + 1);
      request.set_from_generation(last.generation());
      if (!PrintSteps(stream.message(), options, first, session)) {
        return kExitOk;
      }
      first = false;
    }
    if (stream.status().ok()) {
      return kExitOk;  // the job has ended
    }
    LASP_RETURN_IF_ERROR(retry.BeforeNextTry(stream.status()));
  }
}

}  // namespace

absl::StatusOr<int> Metrics(const MetricsOptions& options, const Words& words, Session* session) {
  LASP_ASSIGN_OR_RETURN(const std::string reference, JobArgument(words));
  if (options.to_step > 0 && options.to_step < options.from_step) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--to ", options.to_step, " is before the first step, --from ", options.from_step));
  }
  LASP_ASSIGN_OR_RETURN(const lasp::v1::TrainingJob job, ResolveJob(reference, session));
  if (options.follow) {
    return FollowMetrics(options, job.name(), session);
  }
  Console& console = session->console();
  const OutputFormat format = session->options().output;
  const bool for_person = IsTable(format) && console.Out().is_tty;
  lasp::v1::QueryMetricsRequest request;
  request.set_name(job.name());
  request.set_from_step(options.from_step);
  request.set_to_step(options.to_step);
  request.set_max_points(options.max_points > 0 ? options.max_points
                         : for_person           ? kTerminalPoints
                                                : kMostPoints);
  LASP_ASSIGN_OR_RETURN(Connection* const connection, session->Connect());
  LASP_ASSIGN_OR_RETURN(
      const auto response,
      connection->Call(&connection->metrics(), &lasp::v1::MetricsService::Stub::QueryMetrics,
                       request, kReadDeadline));
  const std::vector<StepMetrics> steps(response.steps().begin(), response.steps().end());
  if (!IsTable(format)) {
    console.Print(MessageArray(steps, format));
  } else if (steps.empty()) {
    console.Note(absl::StrCat("no steps yet; the job is ", StateName(job.state())));
  } else {
    console.Print(StepTable(steps, format == OutputFormat::kWide).Render(console.Out()));
    if (options.max_points == 0 && for_person && steps.size() >= kTerminalPoints) {
      console.Note(absl::StrCat(steps.size(), " steps of the range; --points shows more"));
    }
  }
  return kExitOk;
}

}  // namespace lasp::client
