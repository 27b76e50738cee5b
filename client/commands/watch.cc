#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/commands/commands.h"
#include "client/event_stream.h"
#include "client/interrupt.h"
#include "client/job_follower.h"
#include "client/job_reference.h"
#include "client/job_view.h"
#include "client/output.h"
#include "client/output_table.h"
#include "client/stream_retry.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

using lasp::v1::TrainingJob;
using lasp::v1::WatchTrainingJobsResponse;

// Rows that come one by one: the columns keep their places.
class ChangeTable {
 public:
  explicit ChangeTable(Session* session) : session_(*session) {}

  void Add(const TrainingJob& job, absl::Time now) {
    const auto& progress = job.progress();
    Add({absl::FormatTime("%H:%M:%S", now, absl::LocalTimeZone()),
         ShortName(job.name()),
         {StateName(job.state()), StateStyle(job.state())},
         absl::StrCat(progress.step(), "/", job.spec().max_steps()),
         absl::StrCat(job.generation()),
         job.message().empty() ? job.reason() : job.message()});
  }

  void AddDeleted(absl::string_view name, absl::Time now) {
    Add({absl::FormatTime("%H:%M:%S", now, absl::LocalTimeZone()), ShortName(name),
         std::string("deleted"), std::string("-"), std::string("-"), std::string("")});
  }

 private:
  void Add(std::vector<Cell> row) {
    Table table({{"TIME", false, 8},
                 {"NAME", false, 20},
                 {"STATE", false, 10},
                 {"STEP", true, 11},
                 {"GEN", true, 3},
                 {"MESSAGE"}});
    table.AddRow(std::move(row));
    session_.console().Print(table.Render(session_.console().Out(), first_));
    first_ = false;
  }

  Session& session_;
  bool first_ = true;
};

absl::StatusOr<int> WatchOne(const Words& words, Session* session) {
  LASP_ASSIGN_OR_RETURN(const std::string reference, JobArgument(words));
  LASP_ASSIGN_OR_RETURN(const TrainingJob job, ResolveJob(reference, session));
  ChangeTable table(session);
  const bool documents = !IsTable(session->options().output);
  const auto last = FollowJob(
      job,
      [&](const TrainingJob& now, bool new_state) {
        if (documents) {
          session->console().Print(MessageLine(now));
        } else if (new_state) {
          table.Add(now, absl::Now());
        }
      },
      session);
  if (last.ok() && !documents) {
    session->console().Note(ProgressLine(*last, absl::Now(), Terminal{}));
  }
  return FollowResult(last, job, session);
}

void PrintEvent(const WatchTrainingJobsResponse& response, bool documents, ChangeTable* table,
                Session* session) {
  if (response.event_case() == WatchTrainingJobsResponse::kUpdated) {
    if (documents) {
      session->console().Print(MessageLine(response.updated()));
    } else {
      table->Add(response.updated(), absl::Now());
    }
  } else if (response.event_case() == WatchTrainingJobsResponse::kDeletedName) {
    if (documents) {
      session->console().Print(MessageLine(response));
    } else {
      table->AddDeleted(response.deleted_name(), absl::Now());
    }
  }
}

// The events of a message, one by one.
void PrintEvents(const WatchTrainingJobsResponse& response, bool documents, ChangeTable* table,
                 Session* session) {
  for (const WatchTrainingJobsResponse& event : response.batch().events()) {
    PrintEvent(event, documents, table, session);
  }
  PrintEvent(response, documents, table, session);
}

absl::StatusOr<int> WatchAll(Session* session) {
  constexpr absl::Duration kPatience = absl::Minutes(1);
  LASP_ASSIGN_OR_RETURN(Connection* const connection, session->Connect());
  const InterruptScope scope([] {});
  StreamRetry retry(session, connection);
  ChangeTable table(session);
  const bool documents = !IsTable(session->options().output);
  lasp::v1::WatchTrainingJobsRequest request;
  request.set_parent(session->ProjectName());
  request.set_batched(true);
  while (true) {
    EventStream<WatchTrainingJobsResponse> stream(
        [&](grpc::ClientContext* context, grpc::CompletionQueue* queue) {
          return connection->jobs().PrepareAsyncWatchTrainingJobs(context, request, queue);
        });
    for (StreamEvent event = stream.Next(kPatience); event != StreamEvent::kEnd;
         event = stream.Next(kPatience)) {
      if (event == StreamEvent::kMessage) {
        retry.Heard();
        request.set_resume_token(stream.message().resume_token());
        PrintEvents(stream.message(), documents, &table, session);
      }
    }
    absl::Status status = stream.status();
    if (absl::IsOutOfRange(status)) {
      request.clear_resume_token();  // too old: the present state first
      status = absl::OkStatus();
    }
    LASP_RETURN_IF_ERROR(retry.BeforeNextTry(status));
  }
}

}  // namespace

absl::StatusOr<int> Watch(const Words& words, Session* session) {
  const bool all = words.empty() || words == Words{"jobs"};
  return all ? WatchAll(session) : WatchOne(words, session);
}

}  // namespace lasp::client
