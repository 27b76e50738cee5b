#include "server/training_job_service.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/interchange/initial_weights.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/resource_name.h"
#include "proto/rpc/status_macros.h"
#include "proto/spec/spec_check.h"
#include "server/access_interceptor.h"
#include "server/ended_stream.h"
#include "server/job_fields.h"
#include "server/job_list.h"
#include "server/job_lookup.h"
#include "server/principal.h"
#include "server/request_id.h"
#include "server/unary_call.h"
#include "server/watch_stream.h"

namespace lasp::server {
namespace {

// "Only in Get": at most this many.
constexpr int kMaxTransitions = 100;

// The request of a method that takes bytes.
absl::Status Parse(const grpc::ByteBuffer& bytes, google::protobuf::Message* request) {
  grpc::ByteBuffer copy = bytes;  // parsing clears it
  if (grpc::SerializationTraits<google::protobuf::Message>::Deserialize(&copy, request).ok()) {
    return absl::OkStatus();
  }
  return ErrorWithReason(absl::StatusCode::kInvalidArgument,
                         absl::StrCat("the request is no ", request->GetDescriptor()->full_name(),
                                      ": its bytes do not parse; make the client from the proto "
                                      "files of this release"),
                         "MALFORMED_REQUEST");
}

// Answers with the job once the core has committed.
JobCallback AnswerWithJob(TaskPool* pool, grpc::ServerUnaryReactor* reactor,
                          v1::TrainingJob* response) {
  return [pool, reactor, response](absl::StatusOr<JobViewPtr> job) {
    pool->RunAlways([reactor, response, job = std::move(job)] {
      if (job.ok()) {
        *response = (*job)->ToProto();
      }
      reactor->Finish(ToWireStatus(job.status()));
    });
  };
}

// The same without parsing the spec.
JobCallback AnswerWithBytes(TaskPool* pool, grpc::ServerUnaryReactor* reactor,
                            grpc::ByteBuffer* response) {
  return [pool, reactor, response](absl::StatusOr<JobViewPtr> job) {
    pool->RunAlways([reactor, response, job = std::move(job)] {
      if (job.ok()) {
        const grpc::Slice answer((*job)->Serialize());
        *response = grpc::ByteBuffer(&answer, 1);
      }
      reactor->Finish(ToWireStatus(job.status()));
    });
  };
}

// All of a create request that can be judged without the core. Reads the job's data files.
absl::Status CheckCreate(const std::vector<std::string>& path_roots, const LabelLimits& labels,
                         v1::CreateTrainingJobRequest* request) {
  LASP_RETURN_IF_ERROR(ParseProjectName(request->parent()).status());
  LASP_RETURN_IF_ERROR(CheckRequestId(request->request_id()));
  std::vector<FieldViolation> violations;
  const std::string& id = request->training_job_id();
  if (!id.empty() && !IsValidId(id)) {
    violations.push_back({"training_job_id", absl::StrCat("'", id.substr(0, 80),
                                                          "' is not of the form "
                                                          "[a-z]([a-z0-9-]{0,61}[a-z0-9])?")});
  }
  std::vector<FieldViolation> fields = CheckJobFields(request->training_job(), labels);
  std::move(fields.begin(), fields.end(), std::back_inserter(violations));
  v1::TrainingSpec* const spec = request->mutable_training_job()->mutable_spec();
  LASP_RETURN_IF_ERROR(NormalizeAndCheckSpec(spec, path_roots, std::move(violations)));
  return CheckInitialWeights(*spec, path_roots);
}

absl::Status CheckUpdate(const v1::UpdateTrainingJobRequest& request, const LabelLimits& labels) {
  LASP_RETURN_IF_ERROR(ParseJobName(request.training_job().name()).status());
  for (const std::string& path : request.update_mask().paths()) {
    if (path != "display_name" && path != "labels" && path != "checkpoint_retention") {
      return InvalidFields(
          {{"update_mask", absl::StrCat("'", path.substr(0, 80),
                                        "' cannot be changed: name display_name, labels or "
                                        "checkpoint_retention")}},
          "INVALID_REQUEST");
    }
  }
  const std::vector<FieldViolation> violations = CheckJobFields(request.training_job(), labels);
  return violations.empty() ? absl::OkStatus() : InvalidFields(violations, "INVALID_REQUEST");
}

template <typename Request>
absl::Status CheckAction(const Request& request) {
  LASP_RETURN_IF_ERROR(ParseJobName(request.name()).status());
  return CheckRequestId(request.request_id());
}

}  // namespace

TrainingJobService::TrainingJobService(const ServiceParts& parts,
                                       std::vector<std::string> path_roots, std::string page_secret)
    : parts_(parts),
      path_roots_(std::move(path_roots)),
      page_tokens_(std::move(page_secret)),
      watch_encoder_(&parts.core->watches()) {}

grpc::ServerUnaryReactor* TrainingJobService::CreateTrainingJob(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* bytes,
    grpc::ByteBuffer* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  return RunBlocking(parts_.blocking_pool, reactor,
                     [this, reactor, bytes, response,
                      caller = CallerOf(parts_.access, *context, parts_.clock->Now())] {
                       Create(*bytes, caller, reactor, response);
                     });
}

void TrainingJobService::Create(const grpc::ByteBuffer& bytes, const Caller& caller,
                                grpc::ServerUnaryReactor* reactor, grpc::ByteBuffer* response) {
  v1::CreateTrainingJobRequest request;
  absl::Status status = Parse(bytes, &request);
  // One that was carried out before is answered so again, whatever has become of its data.
  const bool repeatable = status.ok() && !request.request_id().empty() && !request.validate_only();
  if (status.ok()) {
    status = CheckCreate(path_roots_, parts_.labels, &request);
  }
  if (!status.ok() && !repeatable) {
    reactor->Finish(ToWireStatus(status));
    return;
  }
  parts_.core->controller().Create(std::move(request), caller,
                                   AnswerWithBytes(parts_.answer_pool, reactor, response), status);
}

grpc::ServerUnaryReactor* TrainingJobService::GetTrainingJob(
    grpc::CallbackServerContext* context, const v1::GetTrainingJobRequest* request,
    v1::TrainingJob* response) {
  auto job = FindJob(parts_.core->jobs(), request->name());
  if (!job.ok()) {
    return Finish(context, job.status());
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  return RunBlocking(parts_.blocking_pool, reactor, [this, reactor, response, view = *job] {
    auto transitions = parts_.core->store().Transitions(view->id, kMaxTransitions);
    if (transitions.ok()) {
      *response = view->ToProto();
      for (v1::Transition& transition : *transitions) {
        *response->add_transitions() = std::move(transition);
      }
    }
    reactor->Finish(ToWireStatus(transitions.status()));
  });
}

grpc::ServerUnaryReactor* TrainingJobService::ListTrainingJobs(
    grpc::CallbackServerContext* context, const v1::ListTrainingJobsRequest* request,
    v1::ListTrainingJobsResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  GrantPtr grant = GrantOf(parts_.access, *context, parts_.clock->Now());
  return RunBlocking(parts_.blocking_pool, reactor,
                     [this, reactor, request, response, grant = std::move(grant)] {
                       auto page = ListJobs(*request, parts_.core->jobs(), parts_.core->watches(),
                                            page_tokens_, *grant, parts_.clock->Now());
                       const absl::Status status = page.status();
                       if (page.ok()) {
                         *response = *std::move(page);
                       }
                       reactor->Finish(ToWireStatus(status));
                     });
}

grpc::ServerUnaryReactor* TrainingJobService::UpdateTrainingJob(
    grpc::CallbackServerContext* context, const v1::UpdateTrainingJobRequest* request,
    v1::TrainingJob* response) {
  const absl::Status status = CheckUpdate(*request, parts_.labels);
  if (!status.ok()) {
    return Finish(context, status);
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  parts_.core->controller().Update(*request, CallerOf(parts_.access, *context, parts_.clock->Now()),
                                   AnswerWithJob(parts_.answer_pool, reactor, response));
  return reactor;
}

grpc::ServerUnaryReactor* TrainingJobService::DeleteTrainingJob(
    grpc::CallbackServerContext* context, const v1::DeleteTrainingJobRequest* request,
    google::protobuf::Empty* /*response*/) {
  const auto name = ParseJobName(request->name());
  if (!name.ok()) {
    return Finish(context, name.status());
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  parts_.core->controller().Delete(
      *request, CallerOf(parts_.access, *context, parts_.clock->Now()),
      [pool = parts_.answer_pool, reactor](const absl::Status& status) {
        pool->RunAlways([reactor, status] { reactor->Finish(ToWireStatus(status)); });
      });
  return reactor;
}

grpc::ServerUnaryReactor* TrainingJobService::CancelTrainingJob(
    grpc::CallbackServerContext* context, const v1::CancelTrainingJobRequest* request,
    v1::TrainingJob* response) {
  const absl::Status status = CheckAction(*request);
  if (!status.ok()) {
    return Finish(context, status);
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  parts_.core->controller().Cancel(*request, CallerOf(parts_.access, *context, parts_.clock->Now()),
                                   AnswerWithJob(parts_.answer_pool, reactor, response));
  return reactor;
}

grpc::ServerUnaryReactor* TrainingJobService::SuspendTrainingJob(
    grpc::CallbackServerContext* context, const v1::SuspendTrainingJobRequest* request,
    v1::TrainingJob* response) {
  const absl::Status status = CheckAction(*request);
  if (!status.ok()) {
    return Finish(context, status);
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  parts_.core->controller().Suspend(*request,
                                    CallerOf(parts_.access, *context, parts_.clock->Now()),
                                    AnswerWithJob(parts_.answer_pool, reactor, response));
  return reactor;
}

grpc::ServerUnaryReactor* TrainingJobService::ResumeTrainingJob(
    grpc::CallbackServerContext* context, const v1::ResumeTrainingJobRequest* request,
    v1::TrainingJob* response) {
  const absl::Status status = CheckAction(*request);
  if (!status.ok()) {
    return Finish(context, status);
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  parts_.core->controller().Resume(*request, CallerOf(parts_.access, *context, parts_.clock->Now()),
                                   AnswerWithJob(parts_.answer_pool, reactor, response));
  return reactor;
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* TrainingJobService::WatchTrainingJobs(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* bytes) {
  using Stream = grpc::ByteBuffer;
  v1::WatchTrainingJobsRequest request;
  if (const absl::Status parsed = Parse(*bytes, &request); !parsed.ok()) {
    return EndedStream<Stream>(parsed);
  }
  const auto project = ParseProjectName(request.parent(), true);
  if (!project.ok()) {
    return EndedStream<Stream>(project.status());
  }
  auto filter = JobFilter::Parse(request.filter());
  if (!filter.ok()) {
    return EndedStream<Stream>(filter.status());
  }
  const GrantPtr grant = GrantOf(parts_.access, *context, parts_.clock->Now());
  auto stream = std::make_shared<WatchStream>(parts_.streams, parts_.watch_pool,
                                              parts_.slow_reader_limit, &watch_encoder_,
                                              WatchScope{.project = *project,
                                                         .grant = grant,
                                                         .filter = *std::move(filter),
                                                         .batched = request.batched()});
  stream->KeepWhile(AccessLease(parts_.access, grant, parts_.clock));
  const absl::Status status = stream->Subscribe(&parts_.core->watches(), request.resume_token());
  if (!status.ok()) {
    return EndedStream<Stream>(status);
  }
  return stream->Open(PrincipalOf(*context));
}

}  // namespace lasp::server
