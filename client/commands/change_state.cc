// The commands that change a job: cancel, suspend, resume, delete.
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/commands/commands.h"
#include "client/error_report.h"
#include "client/exit_code.h"
#include "client/job_reference.h"
#include "client/job_view.h"
#include "client/output.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/random_id.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

using lasp::v1::TrainingJob;
using JobStub = lasp::v1::TrainingJobService::Stub;

template <typename Request>
absl::StatusOr<int> Change(const TrainingJob& job,
                           grpc::Status (JobStub::*method)(grpc::ClientContext*, const Request&,
                                                           TrainingJob*),
                           Session* session) {
  Request request;
  request.set_name(job.name());
  request.set_request_id(NewUuid());
  LASP_ASSIGN_OR_RETURN(Connection* const connection, session->Connect());
  const auto changed = connection->Call(&connection->jobs(), method, request, kMutationDeadline);
  if (!changed.ok()) {
    return WithRequestId(changed.status(), request.request_id());
  }
  PrintMessage(
      *changed, changed->name(),
      [&] {
        return absl::StrCat("job/", ShortName(changed->name()), " ", StateName(changed->state()),
                            "\n");
      },
      session);
  return kExitOk;
}

// Whether a job that is suspended goes on where it was.
absl::StatusOr<bool> KeepsCheckpoints(const TrainingJob& job, Session* session) {
  LASP_ASSIGN_OR_RETURN(Connection* const connection, session->Connect());
  lasp::v1::ListCheckpointsRequest request;
  request.set_parent(job.name());
  request.set_page_size(1);
  const absl::Status status =
      connection
          ->Call(&connection->checkpoints(), &lasp::v1::CheckpointService::Stub::ListCheckpoints,
                 request, kReadDeadline)
          .status();
  // A coordinator of an earlier release keeps none.
  if (ErrorReason(status) == "CHECKPOINTS_UNAVAILABLE" || absl::IsUnimplemented(status)) {
    return false;
  }
  LASP_RETURN_IF_ERROR(status);
  return true;
}

absl::StatusOr<TrainingJob> TheJob(const Words& words, Session* session) {
  LASP_ASSIGN_OR_RETURN(const std::string reference, JobArgument(words));
  return ResolveJob(reference, session);
}

}  // namespace

absl::StatusOr<int> Cancel(const Words& words, Session* session) {
  LASP_ASSIGN_OR_RETURN(const TrainingJob job, TheJob(words, session));
  return Change(job, &JobStub::CancelTrainingJob, session);
}

absl::StatusOr<int> Suspend(const Words& words, bool yes, Session* session) {
  LASP_ASSIGN_OR_RETURN(const TrainingJob job, TheJob(words, session));
  const std::string id = ShortName(job.name());
  const std::string loss =
      absl::StrCat("the coordinator keeps no checkpoints, so job/", id,
                   " will start again from step 1 when it is resumed (it is at step ",
                   job.progress().step(), ")");
  LASP_ASSIGN_OR_RETURN(const bool saves, KeepsCheckpoints(job, session));
  if (saves || IsFinal(job.state())) {
    // Nothing is lost, or the coordinator refuses it: there is nothing to ask.
  } else if (yes) {
    session->console().Note(loss);
  } else {
    const auto confirmed = session->console().Confirm(absl::StrCat(loss, ". Suspend it?"));
    if (!confirmed.ok()) {
      session->console().Note(loss);  // nobody is there to ask: a script means what it says
    } else if (!*confirmed) {
      session->console().Note("not suspended");
      return kExitFailed;
    }
  }
  return Change(job, &JobStub::SuspendTrainingJob, session);
}

absl::StatusOr<int> Resume(const Words& words, Session* session) {
  LASP_ASSIGN_OR_RETURN(const TrainingJob job, TheJob(words, session));
  return Change(job, &JobStub::ResumeTrainingJob, session);
}

absl::StatusOr<int> Delete(const Words& words, Session* session) {
  LASP_ASSIGN_OR_RETURN(const std::string reference, JobArgument(words));
  // What cannot be undone needs the whole name.
  LASP_ASSIGN_OR_RETURN(const TrainingJob job, ResolveExactJob(reference, session));
  if (!IsFinal(job.state())) {
    const std::string id = ShortName(job.name());
    return WithHint(
        absl::FailedPreconditionError(absl::StrCat("job/", id, " is ", StateName(job.state()),
                                                   "; only a job that has ended can be deleted")),
        absl::StrCat("end it first: lasp cancel ", id));
  }
  lasp::v1::DeleteTrainingJobRequest request;
  request.set_name(job.name());
  LASP_ASSIGN_OR_RETURN(Connection* const connection, session->Connect());
  LASP_RETURN_IF_ERROR(
      connection->Call(&connection->jobs(), &JobStub::DeleteTrainingJob, request, kMutationDeadline)
          .status());
  PrintMessage(
      job, job.name(), [&] { return absl::StrCat("job/", ShortName(job.name()), " deleted\n"); },
      session);
  return kExitOk;
}

}  // namespace lasp::client
