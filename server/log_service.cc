#include "server/log_service.h"

#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "server/access_interceptor.h"
#include "server/ended_stream.h"
#include "server/job_lookup.h"
#include "server/log_stream.h"
#include "server/principal.h"

namespace lasp::server {
namespace {

absl::Status CheckRequest(const v1::StreamLogsRequest& request, const v1::TrainingJob& job,
                          int64_t world_size) {
  std::vector<FieldViolation> violations;
  if (request.has_rank() && (request.rank() < 0 || request.rank() >= world_size)) {
    violations.push_back(
        {"rank", absl::StrCat("is ", request.rank(), ": the job has ranks 0 to ", world_size - 1)});
  }
  if (request.has_generation() &&
      (request.generation() < 1 || request.generation() > std::max<int64_t>(job.generation(), 1))) {
    violations.push_back({"generation", absl::StrCat("is ", request.generation(),
                                                     ": the job has had generations 1 to ",
                                                     std::max<int64_t>(job.generation(), 1))});
  }
  if (request.tail_lines() < 0) {
    violations.push_back(
        {"tail_lines", absl::StrCat("is ", request.tail_lines(), ": use 0 for all lines")});
  }
  return violations.empty() ? absl::OkStatus() : InvalidFields(violations, "INVALID_REQUEST");
}

int64_t WorldSize(const v1::TrainingSpec& spec) {
  return int64_t{spec.parallelism().sequence_parallel().size()} *
         spec.parallelism().data_parallel().size();
}

}  // namespace

grpc::ServerWriteReactor<v1::StreamLogsResponse>* LogService::StreamLogs(
    grpc::CallbackServerContext* context, const v1::StreamLogsRequest* request) {
  using Response = v1::StreamLogsResponse;
  auto job = FindJob(parts_.core->jobs(), request->name());
  if (!job.ok()) {
    return EndedStream<Response>(job.status());
  }
  const absl::Status status =
      CheckRequest(*request, (*job)->job, WorldSize((*job)->ToProto().spec()));
  if (!status.ok()) {
    return EndedStream<Response>(status);
  }
  LogCursor cursor;
  if (!request->resume_token().empty()) {
    auto resumed = LogCursor::FromToken(request->resume_token(), (*job)->job.uid());
    if (!resumed.ok()) {
      return EndedStream<Response>(resumed.status());
    }
    cursor = *std::move(resumed);
  }
  auto stream =
      std::make_shared<LogStream>(parts_.streams, parts_.blocking_pool, parts_.slow_reader_limit,
                                  parts_.core, *std::move(job), *request, std::move(cursor));
  stream->KeepWhile(AccessLease(
      parts_.access, GrantOf(parts_.access, *context, parts_.clock->Now()), parts_.clock));
  stream->Subscribe();
  return stream->Open(PrincipalOf(*context));
}

}  // namespace lasp::server
