#include "client/job_reference.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "client/error_report.h"
#include "client/job_list.h"
#include "client/nearest_name.h"
#include "proto/rpc/resource_name.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

using lasp::v1::TrainingJob;

// Of the candidates shown where a prefix means several.
constexpr size_t kShownCandidates = 5;

absl::StatusOr<TrainingJob> GetJob(const std::string& name, Session* session) {
  LASP_ASSIGN_OR_RETURN(Connection* const connection, session->Connect());
  lasp::v1::GetTrainingJobRequest request;
  request.set_name(name);
  return connection->Call(&connection->jobs(), &lasp::v1::TrainingJobService::Stub::GetTrainingJob,
                          request, kReadDeadline);
}

std::string WithoutKind(absl::string_view reference) {
  absl::ConsumePrefix(&reference, "jobs/") || absl::ConsumePrefix(&reference, "job/");
  return std::string(reference);
}

// What may be the beginning of an id.
bool IsIdPrefix(absl::string_view text) { return IsValidId(absl::StrCat(text, "0")); }

absl::Status NoSuchJob(absl::string_view id, const std::vector<std::string>& ids,
                       Session* session) {
  const std::string& project = session->options().project;
  return WithHint(
      absl::NotFoundError(absl::StrCat("there is no job '", id, "' in the project '", project, "'",
                                       Suggestion(id, ids))),
      absl::StrCat("'lasp list' shows the jobs of a project; --project chooses another one"));
}

absl::StatusOr<TrainingJob> ResolvePrefix(const std::string& prefix, Session* session) {
  ListOptions options;
  options.all_pages = true;
  LASP_ASSIGN_OR_RETURN(const JobList list, ListJobs(options, session));
  std::vector<std::string> ids;
  std::vector<const TrainingJob*> matches;
  for (const TrainingJob& job : list.jobs) {
    ids.push_back(ShortName(job.name()));
    if (absl::StartsWith(ids.back(), prefix)) {
      matches.push_back(&job);
    }
  }
  if (matches.empty()) {
    return NoSuchJob(prefix, ids, session);
  }
  if (matches.size() == 1) {
    return GetJob(matches.front()->name(), session);
  }
  std::vector<std::string> shown;
  for (const TrainingJob* match : matches) {
    shown.push_back(shown.size() < kShownCandidates ? ShortName(match->name()) : "...");
    if (shown.size() > kShownCandidates) {
      break;
    }
  }
  return absl::InvalidArgumentError(absl::StrCat("'", prefix, "' means ", matches.size(),
                                                 " jobs: ", absl::StrJoin(shown, ", "),
                                                 "; give more of the id"));
}

}  // namespace

std::string ShortName(absl::string_view name) {
  return std::string(name.substr(name.rfind('/') + 1));
}

absl::StatusOr<std::string> JobArgument(const std::vector<std::string>& words) {
  const bool with_kind = words.size() == 2 && (words[0] == "job" || words[0] == "jobs");
  if (words.empty() || (words.size() > 1 && !with_kind)) {
    return absl::InvalidArgumentError(
        words.empty() ? "which job? give its name"
                      : absl::StrCat("expected one job, got ", words.size(), " words"));
  }
  return WithoutKind(words.back());
}

absl::StatusOr<TrainingJob> ResolveExactJob(const std::string& reference, Session* session) {
  if (absl::StrContains(reference, '/')) {
    LASP_ASSIGN_OR_RETURN(const JobName name, ParseJobName(reference));
    return GetJob(name.ToString(), session);
  }
  if (!IsValidId(reference)) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", reference, "' is no job's name: small letters, digits and '-'"));
  }
  auto job = GetJob(JobName{session->options().project, reference}.ToString(), session);
  if (absl::IsNotFound(job.status())) {
    return NoSuchJob(reference, {}, session);
  }
  return job;
}

absl::StatusOr<TrainingJob> ResolveJob(const std::string& reference, Session* session) {
  if (!absl::StrContains(reference, '/') && !IsValidId(reference) && IsIdPrefix(reference)) {
    return ResolvePrefix(reference, session);  // ends in '-'
  }
  auto job = ResolveExactJob(reference, session);
  if (absl::IsNotFound(job.status()) && !absl::StrContains(reference, '/')) {
    return ResolvePrefix(reference, session);
  }
  return job;
}

absl::StatusOr<std::string> WorkerArgument(const std::vector<std::string>& words) {
  const bool with_kind = words.size() == 2 && (words[0] == "worker" || words[0] == "workers");
  if (words.empty() || (words.size() > 1 && !with_kind)) {
    return absl::InvalidArgumentError(
        words.empty() ? "which worker? give its name"
                      : absl::StrCat("expected one worker, got ", words.size(), " words"));
  }
  absl::string_view id = words.back();
  absl::ConsumePrefix(&id, "workers/") || absl::ConsumePrefix(&id, "worker/");
  if (!IsValidWorkerId(id)) {
    return absl::InvalidArgumentError(absl::StrCat("'", id, "' is no worker's name"));
  }
  return absl::StrCat("workers/", id);
}

}  // namespace lasp::client
