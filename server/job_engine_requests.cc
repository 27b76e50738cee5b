// What is common to all that users ask for: answers, requests that come twice, the audit log.
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "server/audit_record.h"
#include "server/job_engine.h"
#include "server/not_found.h"

namespace lasp::server {

void JobEngine::Answer(const JobCallback& done, absl::StatusOr<JobViewPtr> answer) {
  unit_.callbacks.emplace_back([done, answer = std::move(answer)] { done(answer); });
}

bool JobEngine::Repeated(absl::string_view method, absl::string_view scope,
                         const std::string& request_id, uint64_t fingerprint,
                         const JobCallback& done, std::string* key) {
  if (request_id.empty()) {
    return false;
  }
  *key = absl::StrCat(method, " ", scope, " ", request_id);
  const PutRequest* earlier = requests_.Find(*key);
  if (earlier == nullptr) {
    return false;
  }
  if (earlier->fingerprint != fingerprint) {
    Answer(done, ErrorWithReason(absl::StatusCode::kInvalidArgument,
                                 absl::StrCat("request_id: ", request_id,
                                              " was used for another request; make a new one"),
                                 "REQUEST_ID_REUSED"));
    return true;
  }
  const auto job = jobs_by_uid_.find(earlier->job_uid);
  if (job == jobs_by_uid_.end()) {
    Answer(done, NotFound(absl::StrCat(earlier->job_name, ", which this request was about,")));
  } else {
    Answer(done, job->second->view);
  }
  return true;
}

void JobEngine::Remember(const std::string& key, uint64_t fingerprint, const JobRecord& job) {
  if (key.empty()) {
    return;
  }
  PutRequest request{.key = key,
                     .fingerprint = fingerprint,
                     .job_name = job.name(),
                     .job_uid = job.uid(),
                     .expire_time = parts_.clock->Now() + options_.request_id_lifetime};
  unit_.mutations.emplace_back(request);
  requests_.Add(std::move(request));
}

void JobEngine::Record(lasp::v1::AuditRecord record) {
  unit_.mutations.emplace_back(AddAuditRecord{.record = std::move(record)});
}

void JobEngine::Audit(const Caller& caller, absl::string_view method, const JobRecord& job,
                      absl::string_view detail) {
  lasp::v1::AuditRecord record = NewAuditRecord(caller, method, job.name(), parts_.clock->Now());
  record.set_uid(job.uid());
  record.set_detail(std::string(detail));
  Record(std::move(record));
}

}  // namespace lasp::server
