// What of a job may be changed after it has been submitted.
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/commands/commands.h"
#include "client/error_report.h"
#include "client/exit_code.h"
#include "client/job_file.h"
#include "client/job_reference.h"
#include "client/job_view.h"
#include "client/output.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

using lasp::v1::TrainingJob;

// A job that trains changes all the time: what was read may be old when it is written.
constexpr int kTries = 5;

// The fields that the settings name.
absl::StatusOr<std::set<std::string>> FieldsOf(const std::vector<std::string>& settings) {
  if (settings.empty()) {
    return WithHint(absl::InvalidArgumentError("nothing to change"),
                    "say what: --set labels.team=nlp");
  }
  std::set<std::string> fields;
  for (const std::string& setting : settings) {
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(setting, absl::MaxSplits(absl::ByAnyChar(".="), 1));
    if (parts.first == "spec") {
      return WithHint(absl::InvalidArgumentError(
                          absl::StrCat("--set ", setting, ": the spec of a job cannot be changed")),
                      "submit another job that goes on from it: lasp submit -f FILE --from NAME");
    }
    fields.insert(parts.first);
  }
  return fields;
}

absl::StatusOr<TrainingJob> Write(const TrainingJob& job, const std::vector<std::string>& settings,
                                  const std::set<std::string>& fields, Connection* connection) {
  lasp::v1::UpdateTrainingJobRequest request;
  TrainingJob* const changed = request.mutable_training_job();
  changed->set_name(job.name());
  changed->set_etag(job.etag());
  changed->set_display_name(job.display_name());
  *changed->mutable_labels() = job.labels();
  *changed->mutable_checkpoint_retention() = job.checkpoint_retention();
  for (const std::string& setting : settings) {
    LASP_RETURN_IF_ERROR(ApplySetting(setting, changed));
  }
  for (const std::string& field : fields) {
    request.mutable_update_mask()->add_paths(field);
  }
  return connection->Call(&connection->jobs(),
                          &lasp::v1::TrainingJobService::Stub::UpdateTrainingJob, request,
                          kMutationDeadline);
}

}  // namespace

absl::StatusOr<int> Update(const std::vector<std::string>& settings, const Words& words,
                           Session* session) {
  LASP_ASSIGN_OR_RETURN(const std::string reference, JobArgument(words));
  LASP_ASSIGN_OR_RETURN(const std::set<std::string> fields, FieldsOf(settings));
  LASP_ASSIGN_OR_RETURN(TrainingJob job, ResolveJob(reference, session));
  LASP_ASSIGN_OR_RETURN(Connection* const connection, session->Connect());
  absl::StatusOr<TrainingJob> changed = Write(job, settings, fields, connection);
  for (int i = 1; i < kTries && absl::IsAborted(changed.status()); ++i) {
    LASP_ASSIGN_OR_RETURN(job, ResolveExactJob(job.name(), session));
    changed = Write(job, settings, fields, connection);
  }
  LASP_RETURN_IF_ERROR(changed.status());
  PrintMessage(
      *changed, changed->name(),
      [&] { return absl::StrCat("job/", ShortName(changed->name()), " updated\n"); }, session);
  return kExitOk;
}

}  // namespace lasp::client
