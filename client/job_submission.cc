#include "client/job_submission.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "client/error_report.h"
#include "client/exit_code.h"
#include "client/job_follower.h"
#include "client/job_reference.h"
#include "client/job_view.h"
#include "client/output.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/random_id.h"
#include "proto/rpc/resource_name.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

using lasp::v1::TrainingJob;

std::string FileLabel(const SubmitOptions& options) {
  return options.file == "-" ? "standard input" : options.file;
}

// The name of the checkpoint that --from, JOB or JOB/STEP, means.
absl::StatusOr<std::string> StartName(const std::string& from, Session* session) {
  const std::pair<std::string, std::string> start = absl::StrSplit(from, absl::MaxSplits('/', 1));
  const std::string step = start.second.empty() ? "latest" : start.second;
  int64_t number = 0;
  if (!IsValidId(start.first) || (step != "latest" && !absl::SimpleAtoi(step, &number))) {
    return absl::InvalidArgumentError(
        absl::StrCat("--from ", from, ": expected JOB or JOB/STEP, a step's number or latest"));
  }
  return absl::StrCat(session->ProjectName(), "/trainingJobs/", start.first, "/checkpoints/", step);
}

absl::StatusOr<TrainingJob> Create(const SubmitOptions& options, const JobFile& file,
                                   Session* session) {
  lasp::v1::CreateTrainingJobRequest request;
  request.set_parent(session->ProjectName());
  request.set_training_job_id(options.id);
  *request.mutable_training_job() = file.job;
  if (!options.start_from.empty()) {
    LASP_ASSIGN_OR_RETURN(*request.mutable_training_job()->mutable_start_from(),
                          StartName(options.start_from, session));
  }
  request.set_validate_only(options.dry_run == DryRun::kServer);
  // Made before the first try, so that a second one cannot make a second job.
  request.set_request_id(NewUuid());
  LASP_ASSIGN_OR_RETURN(Connection* const connection, session->Connect());
  auto job =
      connection->Call(&connection->jobs(), &lasp::v1::TrainingJobService::Stub::CreateTrainingJob,
                       request, kMutationDeadline);
  return job.ok() ? job : WithRequestId(PointIntoFile(job.status(), file), request.request_id());
}

absl::StatusOr<int> Wait(const TrainingJob& job, Session* session) {
  const auto last = FollowJob(
      job,
      [session](const TrainingJob& now, bool new_state) {
        if (new_state) {
          session->console().Note(absl::StrCat("job/", ShortName(now.name()), " ",
                                               StateName(now.state()), ": ",
                                               ProgressLine(now, absl::Now(), Terminal{})));
        }
      },
      session);
  if (last.ok() && !IsTable(session->options().output)) {
    PrintMessage(*last, last->name(), nullptr, session);
  }
  return FollowResult(last, job, session);
}

}  // namespace

absl::Status PointIntoFile(const absl::Status& status, const JobFile& file) {
  auto violations = FieldViolations(status);
  if (violations.empty()) {
    return status;
  }
  for (FieldViolation& violation : violations) {
    absl::string_view path = violation.field;
    absl::ConsumePrefix(&path, "training_job.");
    violation.field = std::string(path);
    const auto line = file.lines.find(violation.field);
    if (line != file.lines.end()) {
      absl::StrAppend(&violation.description, " (line ", line->second, ")");
    }
  }
  const std::string reason = ErrorReason(status);
  return InvalidFields(violations, reason.empty() ? "INVALID_SPEC" : reason);
}

absl::StatusOr<JobFile> ReadJob(const SubmitOptions& options) {
  const auto text = ReadJobText(options.file);
  if (!text.ok()) {
    // A file that is not there is a wrong command line, not a job that is not there.
    return absl::InvalidArgumentError(text.status().message());
  }
  auto file = ParseJobFile(*text);
  if (!file.ok()) {
    // Violations name their lines themselves.
    return FieldViolations(file.status()).empty()
               ? absl::Status(file.status().code(),
                              absl::StrCat(FileLabel(options), ": ", file.status().message()))
               : file.status();
  }
  for (const std::string& setting : options.settings) {
    LASP_RETURN_IF_ERROR(ApplySetting(setting, &file->job));
    file->lines.erase(setting.substr(0, setting.find('=')));
  }
  return file;
}

absl::StatusOr<int> SubmitJob(const SubmitOptions& options, const JobFile& file, Session* session) {
  const auto print = [&](const TrainingJob& job, const char* done) {
    PrintMessage(
        job, job.name(),
        [&] {
          const std::string id = ShortName(job.name());
          return absl::StrCat("job", id.empty() ? "" : "/", id, " ", done, "\n");
        },
        session);
  };
  if (options.dry_run == DryRun::kClient) {
    print(file.job, "could be read (nothing was sent)");
    return kExitOk;
  }
  LASP_ASSIGN_OR_RETURN(const TrainingJob job, Create(options, file, session));
  if (options.dry_run == DryRun::kServer) {
    print(job, "would be created (dry run)");
    return kExitOk;
  }
  // With --wait a document holds the job's last form, and comes at the end.
  if (!options.wait || IsTable(session->options().output)) {
    print(job, "created");
  }
  if (!options.wait) {
    session->console().Note(absl::StrCat("follow it with: lasp watch ", ShortName(job.name())));
    return kExitOk;
  }
  return Wait(job, session);
}

}  // namespace lasp::client
