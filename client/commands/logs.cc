#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/commands/commands.h"
#include "client/event_stream.h"
#include "client/exit_code.h"
#include "client/interrupt.h"
#include "client/job_reference.h"
#include "client/log_text.h"
#include "client/output.h"
#include "client/stream_retry.h"
#include "client/time_text.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

constexpr absl::Duration kPatience = absl::Minutes(1);

void PrintLine(const lasp::v1::LogLine& line, const LogOptions& options, bool tty,
               Session* session) {
  if (!IsTable(session->options().output)) {
    session->console().Print(MessageLine(line));
    return;
  }
  std::string text;
  if (options.timestamps) {
    absl::StrAppend(&text, FormatTimestamp(line.time()), " ");
  }
  if (!options.rank.has_value()) {
    absl::StrAppend(&text, "[rank ", line.rank(), "] ");
  }
  // A file gets the bytes as they are.
  session->console().Print(absl::StrCat(text, tty ? ReadableLogText(line) : line.text(), "\n"));
}

}  // namespace

absl::StatusOr<int> Logs(const LogOptions& options, const Words& words, Session* session) {
  LASP_ASSIGN_OR_RETURN(const std::string reference, JobArgument(words));
  lasp::v1::StreamLogsRequest request;
  if (!options.since.empty()) {
    LASP_ASSIGN_OR_RETURN(*request.mutable_since(), ParseSince(options.since));
  }
  LASP_ASSIGN_OR_RETURN(const lasp::v1::TrainingJob job, ResolveJob(reference, session));
  request.set_name(job.name());
  if (options.rank.has_value()) {
    request.set_rank(*options.rank);
  }
  if (options.generation.has_value()) {
    request.set_generation(*options.generation);
  }
  request.set_follow(options.follow);
  request.set_tail_lines(options.tail);
  LASP_ASSIGN_OR_RETURN(Connection* const connection, session->Connect());
  const InterruptScope scope([] {});
  StreamRetry retry(session, connection);
  const bool tty = session->console().Out().is_tty;
  bool any = false;
  bool ended = false;
  while (!ended) {
    EventStream<lasp::v1::StreamLogsResponse> stream(
        [&](grpc::ClientContext* context, grpc::CompletionQueue* queue) {
          return connection->logs().PrepareAsyncStreamLogs(context, request, queue);
        });
    for (StreamEvent event = stream.Next(kPatience); event != StreamEvent::kEnd;
         event = stream.Next(kPatience)) {
      if (event == StreamEvent::kTimeout) {
        continue;
      }
      retry.Heard();
      for (const auto& line : stream.message().lines()) {
        PrintLine(line, options, tty, session);
        any = true;
      }
      request.set_resume_token(stream.message().resume_token());
    }
    ended = stream.status().ok();
    if (!ended) {
      LASP_RETURN_IF_ERROR(retry.BeforeNextTry(stream.status()));
    }
  }
  if (!any && IsTable(session->options().output)) {
    session->console().Note("no lines");
  }
  return kExitOk;
}

}  // namespace lasp::client
