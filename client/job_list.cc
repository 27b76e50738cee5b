#include "client/job_list.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "client/enum_names.h"
#include "client/nearest_name.h"
#include "proto/rpc/status_macros.h"

namespace lasp::client {
namespace {

constexpr int kPageSize = 500;

std::string Quoted(absl::string_view text) {
  return absl::StrCat("\"", absl::StrReplaceAll(text, {{"\\", "\\\\"}, {"\"", "\\\""}}), "\"");
}

}  // namespace

absl::StatusOr<std::string> ListFilter(const ListOptions& options) {
  std::vector<std::string> terms;
  if (!options.filter.empty()) {
    terms.push_back(options.filter);
  }
  if (!options.state.empty()) {
    const auto& type = *lasp::v1::TrainingJob::State_descriptor();
    const std::string state = absl::AsciiStrToUpper(options.state);
    const auto* value = FindEnumValue(type, state);
    if (value == nullptr) {
      const auto names = ShortEnumNames(type);
      return absl::InvalidArgumentError(
          absl::StrCat("--state ", options.state, ": expected one of ", absl::StrJoin(names, ", "),
                       Suggestion(state, names)));
    }
    terms.push_back(absl::StrCat("state=", ShortEnumName(*value)));
  }
  for (const std::string& label : options.labels) {
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(label, absl::MaxSplits('=', 1));
    if (parts.first.empty() || parts.first.size() == label.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--label ", label, ": expected KEY=VALUE, such as team=nlp"));
    }
    terms.push_back(absl::StrCat("labels.", parts.first, "=", Quoted(parts.second)));
  }
  return absl::StrJoin(terms, " AND ");
}

absl::StatusOr<JobList> ListJobs(const ListOptions& options, Session* session) {
  lasp::v1::ListTrainingJobsRequest request;
  request.set_parent(options.all_projects ? "projects/-" : session->ProjectName());
  request.set_order_by(options.order_by);
  LASP_ASSIGN_OR_RETURN(*request.mutable_filter(), ListFilter(options));
  LASP_ASSIGN_OR_RETURN(Connection* const connection, session->Connect());
  JobList list;
  while (true) {
    const int left = options.limit - static_cast<int>(list.jobs.size());
    request.set_page_size(options.all_pages ? kPageSize : std::min(left, kPageSize));
    LASP_ASSIGN_OR_RETURN(
        const auto page,
        connection->Call(&connection->jobs(), &lasp::v1::TrainingJobService::Stub::ListTrainingJobs,
                         request, kReadDeadline));
    list.jobs.insert(list.jobs.end(), page.training_jobs().begin(), page.training_jobs().end());
    list.more = !page.next_page_token().empty();
    if (!list.more || (!options.all_pages && static_cast<int>(list.jobs.size()) >= options.limit)) {
      return list;
    }
    request.set_page_token(page.next_page_token());
  }
}

}  // namespace lasp::client
