// What users ask for: to create a job, to change and to delete it.
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/proto_time.h"
#include "proto/rpc/random_id.h"
#include "proto/rpc/resource_name.h"
#include "proto/rpc/status_macros.h"
#include "server/audit_record.h"
#include "server/event_text.h"
#include "server/job_engine.h"
#include "server/not_found.h"

namespace lasp::server {
namespace {

using Job = lasp::v1::TrainingJob;

absl::Status EtagMismatch(const JobRecord& job) {
  return ErrorWithReason(
      absl::StatusCode::kAborted,
      absl::StrCat(job.name(), " has changed: its etag is ", job.view->Etag(), "; read it again"),
      "ETAG_MISMATCH");
}

// "My Run #2" → "my-run-2".
std::string Slug(const std::string& display_name) {
  constexpr size_t kMaxLength = 48;
  std::string slug;
  for (const char c : display_name) {
    const auto byte = static_cast<unsigned char>(c);
    if (absl::ascii_isalnum(byte)) {
      slug += absl::ascii_tolower(byte);
    } else if (!slug.empty() && slug.back() != '-') {
      slug += '-';
    }
  }
  while (!slug.empty() && !absl::ascii_isalpha(static_cast<unsigned char>(slug.front()))) {
    slug.erase(slug.begin());
  }
  if (slug.size() > kMaxLength) {
    slug.resize(kMaxLength);
  }
  while (!slug.empty() && slug.back() == '-') {
    slug.pop_back();
  }
  return slug;
}

std::vector<std::string> UpdatedFields(bool display_name, bool labels, bool retention) {
  std::vector<std::string> fields;
  if (display_name) {
    fields.emplace_back("display_name");
  }
  if (labels) {
    fields.emplace_back("labels");
  }
  if (retention) {
    fields.emplace_back("checkpoint_retention");
  }
  return fields;
}

}  // namespace

std::string JobEngine::NewJobId(const std::string& project, const std::string& display_name) {
  constexpr int kSuffixLength = 6;
  std::string slug = Slug(display_name);
  if (slug.empty()) {
    slug = "job";
  }
  while (true) {
    std::string id = absl::StrCat(slug, "-", NewIdSuffix(kSuffixLength));
    if (FindJob(JobName{project, id}.ToString()) == nullptr) {
      return id;
    }
  }
}

void JobEngine::Create(lasp::v1::CreateTrainingJobRequest request, const Caller& caller,
                       const JobCallback& done, absl::Status verdict) {
  const absl::StatusOr<std::string> project = ParseProjectName(request.parent());
  if (!project.ok()) {
    Answer(done, project.status());
    return;
  }
  const std::string request_id = std::exchange(*request.mutable_request_id(), "");
  const bool validate_only = request.validate_only();
  request.clear_validate_only();
  const uint64_t fingerprint = request_id.empty() ? 0 : Fingerprint(request);
  std::string key;
  if (!validate_only && Repeated("create", *project, request_id, fingerprint, done, &key)) {
    return;
  }
  if (!verdict.ok()) {
    Answer(done, std::move(verdict));
    return;
  }
  if (absl::Status room = CheckQueueRoom(*project); !room.ok()) {
    Answer(done, std::move(room));
    return;
  }
  Job& job = *request.mutable_training_job();
  if (absl::Status start = ResolveStart(*project, &job); !start.ok()) {
    Answer(done, std::move(start));
    return;
  }
  const std::string id = request.training_job_id().empty() ? NewJobId(*project, job.display_name())
                                                           : request.training_job_id();
  const std::string name = JobName{*project, id}.ToString();
  if (FindJob(name) != nullptr) {
    Answer(done, ErrorWithReason(absl::StatusCode::kAlreadyExists,
                                 absl::StrCat(name,
                                              " exists already; choose another id, or none "
                                              "to have one made"),
                                 "ALREADY_EXISTS", {{"resource", name}}));
    return;
  }

  auto view = std::make_shared<JobView>();
  view->spec = std::make_shared<const std::string>(job.spec().SerializeAsString());
  Job& stored = view->job;
  stored.set_name(name);
  stored.mutable_display_name()->swap(*job.mutable_display_name());
  stored.mutable_labels()->swap(*job.mutable_labels());
  *stored.mutable_checkpoint_retention() = job.checkpoint_retention();
  stored.mutable_checkpoint_retention()->set_keep_last(KeepLast(job.checkpoint_retention()));
  stored.set_start_from(job.start_from());
  stored.mutable_progress()->set_max_steps(job.spec().max_steps());
  stored.set_state(Job::STATE_QUEUED);
  *stored.mutable_create_time() = ToProtoTime(parts_.clock->Now());
  *stored.mutable_update_time() = stored.create_time();
  if (validate_only) {
    Answer(done, std::move(view));
    return;
  }
  stored.set_uid(NewUuid());
  view->id = ++last_job_id_;
  view->revision = NextRevision();
  JobRecord* record = AddRecord(view);
  const size_t before = queues_[record->kind].size() + recovering_[record->kind].size();
  const auto [why, message] = Explain(*record, before);
  stored.set_reason(why);
  stored.set_message(message);
  if (before < static_cast<size_t>(options_.explained_queue_length)) {
    *stored.mutable_slot_wait() = WaitOf(*record, before);
  }

  unit_.mutations.emplace_back(PutJob{.view = view, .created = true});
  lasp::v1::Transition transition;
  transition.set_to_state(Job::STATE_QUEUED);
  transition.set_reason(reason::kSubmitted);
  transition.set_message("submitted");
  transition.set_actor(caller.Actor());
  *transition.mutable_time() = stored.create_time();
  AddTransitionRow(*record, std::move(transition));
  Audit(caller, audit::kCreate, *record);
  unit_.published_jobs.push_back(view);
  Remember(key, fingerprint, *record);
  EnterState(record, Job::STATE_UNSPECIFIED, reason::kSubmitted);
  Answer(done, std::move(view));
}

void JobEngine::Update(const lasp::v1::UpdateTrainingJobRequest& request, const Caller& caller,
                       const JobCallback& done) {
  JobRecord* job = FindJob(request.training_job().name());
  if (job == nullptr) {
    Answer(done, NotFound(request.training_job().name()));
    return;
  }
  if (!request.training_job().etag().empty() &&
      request.training_job().etag() != job->view->Etag()) {
    Answer(done, EtagMismatch(*job));
    return;
  }
  bool display_name = request.update_mask().paths().empty();
  bool labels = display_name;
  bool retention = display_name;
  for (const std::string& path : request.update_mask().paths()) {
    if (path != "display_name" && path != "labels" && path != "checkpoint_retention") {
      Answer(done, InvalidFields({{"update_mask", absl::StrCat("'", path,
                                                               "' cannot be updated; display_name, "
                                                               "labels and checkpoint_retention "
                                                               "can")}},
                                 "INVALID_UPDATE_MASK"));
      return;
    }
    display_name = display_name || path == "display_name";
    labels = labels || path == "labels";
    retention = retention || path == "checkpoint_retention";
  }
  Edit(job, /*stored=*/true, [&](Job* changed) {
    if (display_name) {
      changed->set_display_name(request.training_job().display_name());
    }
    if (labels) {
      *changed->mutable_labels() = request.training_job().labels();
    }
    if (retention && request.training_job().has_checkpoint_retention()) {
      *changed->mutable_checkpoint_retention() = request.training_job().checkpoint_retention();
    }
  });
  Audit(caller, audit::kUpdate, *job,
        absl::StrJoin(UpdatedFields(display_name, labels, retention), ", "));
  Answer(done, job->view);
}

void JobEngine::Delete(const lasp::v1::DeleteTrainingJobRequest& request, const Caller& caller,
                       const DoneCallback& done) {
  const auto answer = [this, &done](absl::Status status) {
    unit_.callbacks.emplace_back([done, status = std::move(status)] { done(status); });
  };
  JobRecord* job = FindJob(request.name());
  if (job == nullptr) {
    answer(NotFound(request.name()));
    return;
  }
  if (!request.etag().empty() && request.etag() != job->view->Etag()) {
    answer(EtagMismatch(*job));
    return;
  }
  if (!IsFinished(job->state())) {
    answer(ErrorWithReason(absl::StatusCode::kFailedPrecondition,
                           absl::StrCat(job->name(), " is ", JobStateName(job->state()),
                                        "; cancel it and wait until it has ended"),
                           "JOB_NOT_FINISHED"));
    return;
  }
  if (const JobRecord* const other = NeededBy(*job); other != nullptr) {
    answer(ErrorWithReason(absl::StatusCode::kFailedPrecondition,
                           absl::StrCat(other->name(), " was started from a checkpoint of ",
                                        job->name(), " and has none of its own yet"),
                           "CHECKPOINT_IN_USE"));
    return;
  }
  Audit(caller, audit::kDelete, *job);
  RemoveJob(job, caller.Actor());
  answer(absl::OkStatus());
}

}  // namespace lasp::server
