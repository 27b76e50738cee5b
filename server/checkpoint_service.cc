#include "server/checkpoint_service.h"

#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/resource_name.h"
#include "proto/rpc/status_macros.h"
#include "server/access_interceptor.h"
#include "server/ended_stream.h"
#include "server/job_lookup.h"
#include "server/not_found.h"
#include "server/principal.h"
#include "server/unary_call.h"

namespace lasp::server {
namespace {

// Answers once the core has committed.
CheckpointCallback AnswerWith(TaskPool* pool, grpc::ServerUnaryReactor* reactor,
                              v1::Checkpoint* response) {
  return [pool, reactor, response](absl::StatusOr<v1::Checkpoint> checkpoint) {
    pool->RunAlways([reactor, response, checkpoint = std::move(checkpoint)] {
      if (checkpoint.ok()) {
        *response = *checkpoint;
      }
      reactor->Finish(ToWireStatus(checkpoint.status()));
    });
  };
}

}  // namespace

absl::Status CheckpointService::CheckKept() const {
  if (parts_.core->keeps_checkpoints()) {
    return absl::OkStatus();
  }
  return ErrorWithReason(
      absl::StatusCode::kFailedPrecondition,
      "this coordinator has no --checkpoint_root and keeps no checkpoints: a job "
      "that restarts begins again at step 1",
      "CHECKPOINTS_UNAVAILABLE");
}

absl::StatusOr<v1::Checkpoint> CheckpointService::Get(const std::string& name) const {
  LASP_ASSIGN_OR_RETURN(const CheckpointName parsed, ParseCheckpointName(name));
  LASP_ASSIGN_OR_RETURN(const JobViewPtr job, FindJob(parts_.core->jobs(), parsed.job.ToString()));
  LASP_RETURN_IF_ERROR(CheckKept());
  const CheckpointList list = parts_.core->checkpoints().Find(job->job.uid());
  for (const v1::Checkpoint& checkpoint : *list) {
    if (checkpoint.step() == parsed.step) {
      return checkpoint;
    }
  }
  return CheckpointNotFound(name);
}

absl::Status CheckpointService::List(const v1::ListCheckpointsRequest& request,
                                     v1::ListCheckpointsResponse* response) const {
  LASP_ASSIGN_OR_RETURN(const JobViewPtr job, FindJob(parts_.core->jobs(), request.parent()));
  LASP_RETURN_IF_ERROR(CheckKept());
  LASP_ASSIGN_OR_RETURN(const int page_size, ResolvePageSize(request.page_size()));
  const std::vector<std::string> query = {"checkpoints", job->job.uid()};
  const absl::Time now = parts_.clock->Now();
  std::pair<int64_t, int64_t> before = {std::numeric_limits<int64_t>::max(), 0};
  if (!request.page_token().empty()) {
    LASP_ASSIGN_OR_RETURN(const std::string cursor,
                          page_tokens_.Decode(query, request.page_token(), now));
    const std::vector<std::string> parts = absl::StrSplit(cursor, ',');
    if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &before.first) ||
        !absl::SimpleAtoi(parts[1], &before.second)) {
      return ErrorWithReason(absl::StatusCode::kInvalidArgument,
                             "page_token: is not of this list; begin with an empty one",
                             "PAGE_TOKEN_INVALID");
    }
  }
  const CheckpointList list = parts_.core->checkpoints().Find(job->job.uid());
  for (const v1::Checkpoint& checkpoint : *list) {
    const std::pair<int64_t, int64_t> key = {checkpoint.step(), checkpoint.generation()};
    if (key >= before) {
      continue;
    }
    if (response->checkpoints_size() == page_size) {
      const v1::Checkpoint& last = response->checkpoints(page_size - 1);
      response->set_next_page_token(
          page_tokens_.Encode(query, absl::StrCat(last.step(), ",", last.generation()), now));
      break;
    }
    *response->add_checkpoints() = checkpoint;
  }
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* CheckpointService::GetCheckpoint(grpc::CallbackServerContext* context,
                                                           const v1::GetCheckpointRequest* request,
                                                           v1::Checkpoint* response) {
  const absl::StatusOr<v1::Checkpoint> checkpoint = Get(request->name());
  if (checkpoint.ok()) {
    *response = *checkpoint;
  }
  return Finish(context, checkpoint.status());
}

grpc::ServerUnaryReactor* CheckpointService::ListCheckpoints(
    grpc::CallbackServerContext* context, const v1::ListCheckpointsRequest* request,
    v1::ListCheckpointsResponse* response) {
  return Finish(context, List(*request, response));
}

grpc::ServerUnaryReactor* CheckpointService::VerifyCheckpoint(
    grpc::CallbackServerContext* context, const v1::VerifyCheckpointRequest* request,
    v1::Checkpoint* response) {
  if (const absl::Status status = Get(request->name()).status(); !status.ok()) {
    return Finish(context, status);
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  parts_.core->controller().VerifyCheckpoint(*request,
                                             CallerOf(parts_.access, *context, parts_.clock->Now()),
                                             AnswerWith(parts_.answer_pool, reactor, response));
  return reactor;
}

grpc::ServerUnaryReactor* CheckpointService::DeleteCheckpoint(
    grpc::CallbackServerContext* context, const v1::DeleteCheckpointRequest* request,
    v1::Checkpoint* response) {
  if (const absl::Status status = Get(request->name()).status(); !status.ok()) {
    return Finish(context, status);
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  parts_.core->controller().DeleteCheckpoint(*request,
                                             CallerOf(parts_.access, *context, parts_.clock->Now()),
                                             AnswerWith(parts_.answer_pool, reactor, response));
  return reactor;
}

grpc::ServerWriteReactor<v1::ExportCheckpointResponse>* CheckpointService::ExportCheckpoint(
    grpc::CallbackServerContext* context, const v1::ExportCheckpointRequest* request) {
  using Response = v1::ExportCheckpointResponse;
  absl::Status status = Get(request->name()).status();
  if (status.ok() && (request->first_tensor() < 0 || request->first_element() < 0)) {
    status = InvalidFields({{"first_tensor", "or first_element is negative: begin with 0"}},
                           "INVALID_REQUEST");
  }
  if (!status.ok()) {
    return EndedStream<Response>(status);
  }
  auto place = ExportPlace::Take(exports_);
  if (!place.ok()) {
    return EndedStream<Response>(place.status());
  }
  const absl::StatusOr<CheckpointName> name = ParseCheckpointName(request->name());
  const auto job = FindJob(parts_.core->jobs(), name->job.ToString());
  if (!job.ok()) {
    return EndedStream<Response>(job.status());
  }
  auto stream = std::make_shared<CheckpointExport>(parts_.streams, parts_.export_pool,
                                                   parts_.slow_reader_limit, parts_.core,
                                                   (*job)->job.uid(), *request, *std::move(place));
  const absl::Time now = parts_.clock->Now();
  stream->KeepWhile(
      AccessLease(parts_.access, GrantOf(parts_.access, *context, now), parts_.clock));
  // Once it is open it may end at any time, and the context and the request with it.
  v1::ExportCheckpointRequest asked = *request;
  Caller caller = CallerOf(parts_.access, *context, now);
  grpc::ServerWriteReactor<Response>* const reactor = stream->Open(PrincipalOf(*context));
  // That it begins is recorded before the first byte leaves.
  parts_.core->controller().ExportCheckpoint(std::move(asked), std::move(caller),
                                             [stream](absl::StatusOr<v1::Checkpoint> checkpoint) {
                                               stream->Admit(std::move(checkpoint));
                                             });
  return reactor;
}

}  // namespace lasp::server
