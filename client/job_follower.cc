#include "client/job_follower.h"

#include <google/protobuf/util/message_differencer.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/error_report.h"
#include "client/event_stream.h"
#include "client/exit_code.h"
#include "client/interrupt.h"
#include "client/job_reference.h"
#include "client/job_view.h"
#include "client/stream_retry.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/resource_name.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

using lasp::v1::TrainingJob;
using lasp::v1::WatchTrainingJobsResponse;

constexpr absl::Duration kRedraw = absl::Seconds(1);
// Without a terminal a line of progress comes this often.
constexpr absl::Duration kPlainLine = absl::Seconds(10);
// A silent stream is checked against the job itself.
constexpr absl::Duration kRefresh = absl::Seconds(3);

class Follower {
 public:
  Follower(const TrainingJob& job, const std::function<void(const TrainingJob&, bool)>& on_update,
           Session* session, Connection* connection)
      : job_(job),
        on_update_(on_update),
        session_(*session),
        connection_(*connection),
        retry_(session, connection) {}

  absl::StatusOr<TrainingJob> Run() {
    const InterruptScope scope([] {});
    on_update_(job_, true);
    while (!IsFinal(job_.state())) {
      const absl::Status status = FollowStream();
      if (!IsFinal(job_.state())) {
        LASP_RETURN_IF_ERROR(retry_.BeforeNextTry(status));
      }
    }
    session_.console().ClearProgress();
    return job_;
  }

 private:
  // One watch, until it ends. OK also where the job has ended.
  absl::Status FollowStream() {
    lasp::v1::WatchTrainingJobsRequest request;
    LASP_ASSIGN_OR_RETURN(const JobName name, ParseJobName(job_.name()));
    request.set_parent(absl::StrCat("projects/", name.project));
    request.set_filter(absl::StrCat("name=\"", job_.name(), "\""));
    request.set_resume_token(resume_token_);
    EventStream<WatchTrainingJobsResponse> stream(
        [&](grpc::ClientContext* context, grpc::CompletionQueue* queue) {
          return connection_.jobs().PrepareAsyncWatchTrainingJobs(context, request, queue);
        });
    while (!IsFinal(job_.state()) && !Interrupted()) {
      ShowProgress();
      const StreamEvent event = stream.Next(kRedraw);
      if (event == StreamEvent::kMessage) {
        retry_.Heard();
        last_heard_ = absl::Now();
        LASP_RETURN_IF_ERROR(Take(stream.message()));
      } else if (event == StreamEvent::kTimeout) {
        LASP_RETURN_IF_ERROR(RefreshWhenSilent());
      } else {
        return StreamEnd(stream.status());
      }
    }
    return absl::OkStatus();
  }

  absl::Status Take(const WatchTrainingJobsResponse& response) {
    resume_token_ = response.resume_token();
    if (response.event_case() == WatchTrainingJobsResponse::kUpdated) {
      return Update(response.updated());
    }
    if (response.event_case() == WatchTrainingJobsResponse::kDeletedName &&
        response.deleted_name() == job_.name()) {
      return absl::NotFoundError("the job was deleted");
    }
    return absl::OkStatus();
  }

  absl::Status RefreshWhenSilent() {
    if (absl::Now() - last_heard_ < kRefresh) {
      return absl::OkStatus();
    }
    last_heard_ = absl::Now();
    lasp::v1::GetTrainingJobRequest request;
    request.set_name(job_.name());
    const auto job =
        connection_.Call(&connection_.jobs(), &lasp::v1::TrainingJobService::Stub::GetTrainingJob,
                         request, kReadDeadline);
    if (absl::IsDeadlineExceeded(job.status())) {
      return absl::OkStatus();  // busy: the stream still stands
    }
    LASP_RETURN_IF_ERROR(job.status());
    retry_.Heard();
    return Update(*job);
  }

  // What can be mended is OK: the caller watches anew.
  absl::Status StreamEnd(const absl::Status& status) {
    if (absl::IsOutOfRange(status)) {
      resume_token_.clear();  // too old: the present state first
      return absl::OkStatus();
    }
    return absl::IsResourceExhausted(status) ? absl::OkStatus() : status;
  }

  absl::Status Update(TrainingJob job) {
    if (job.uid() != job_.uid()) {
      // The watch was away when it happened.
      return absl::NotFoundError("the job was deleted, and another one has its name now");
    }
    // Transitions come with Get only.
    job.clear_transitions();
    job_.clear_transitions();
    if (google::protobuf::util::MessageDifferencer::Equals(job, job_)) {
      return absl::OkStatus();
    }
    const bool new_state = job.state() != job_.state() || job.reason() != job_.reason() ||
                           job.generation() != job_.generation();
    job_ = std::move(job);
    on_update_(job_, new_state);
    return absl::OkStatus();
  }

  void ShowProgress() {
    Console& console = session_.console();
    const Terminal terminal = console.Error();
    const absl::Time now = absl::Now();
    if (terminal.is_tty) {
      console.DrawProgress(ProgressLine(job_, now, terminal));
    } else if (now - last_line_ >= kPlainLine) {
      if (last_line_ != absl::InfinitePast()) {
        console.Note(absl::StrCat(ShortName(job_.name()), ": ", ProgressLine(job_, now, terminal)));
      }
      last_line_ = now;
    }
  }

  TrainingJob job_;
  const std::function<void(const TrainingJob&, bool)>& on_update_;
  Session& session_;
  Connection& connection_;
  StreamRetry retry_;
  std::string resume_token_;
  absl::Time last_heard_ = absl::Now();
  absl::Time last_line_ = absl::InfinitePast();
};

}  // namespace

absl::StatusOr<TrainingJob> FollowJob(
    const TrainingJob& job, const std::function<void(const TrainingJob&, bool)>& on_update,
    Session* session) {
  LASP_ASSIGN_OR_RETURN(Connection* const connection, session->Connect());
  return Follower(job, on_update, session, connection).Run();
}

absl::StatusOr<int> FollowResult(const absl::StatusOr<TrainingJob>& last, const TrainingJob& job,
                                 Session* session) {
  const std::string id = ShortName(job.name());
  const std::string attach = absl::StrCat("attach again with: lasp watch ", id);
  if (absl::IsCancelled(last.status()) && Interrupted()) {
    session->console().Note(absl::StrCat("detached: the job goes on; ", attach));
    session->console().Note(absl::StrCat("end it with: lasp cancel ", id));
    return InterruptExitCode();
  }
  if (!last.ok()) {
    return absl::IsUnavailable(last.status()) ? WithHint(last.status(), attach) : last.status();
  }
  if (last->state() == TrainingJob::STATE_SUCCEEDED) {
    return kExitOk;
  }
  if (last->state() == TrainingJob::STATE_FAILED) {
    const std::string why =
        last->error().message().empty() ? last->message() : last->error().message();
    session->console().Complain(ErrorReport(
        absl::StrCat("job/", id),
        WithHint(absl::UnknownError(absl::StrCat("FAILED: ", why)),
                 absl::StrCat("'lasp describe ", id, "' tells what happened, 'lasp logs ", id,
                              "' what its ranks said")),
        session->console().Error(), false));
  }
  return kExitFailed;
}

}  // namespace lasp::client
