#include "server/metrics_service.h"

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "server/access_interceptor.h"
#include "server/ended_stream.h"
#include "server/job_lookup.h"
#include "server/metrics_stream.h"
#include "server/principal.h"
#include "server/unary_call.h"

namespace lasp::server {
namespace {

constexpr int kDefaultPoints = 1'000;
constexpr int kMaxPoints = 10'000;

absl::Status CheckQuery(const v1::QueryMetricsRequest& request) {
  std::vector<FieldViolation> violations;
  if (request.from_step() < 0) {
    violations.push_back({"from_step", absl::StrCat("is ", request.from_step(),
                                                    ": steps count from 1; leave it out for all")});
  }
  if (request.to_step() < 0) {
    violations.push_back(
        {"to_step", absl::StrCat("is ", request.to_step(), ": use 0 for the last step")});
  } else if (request.to_step() > 0 && request.to_step() < request.from_step()) {
    violations.push_back({"to_step", absl::StrCat("is ", request.to_step(), ", before from_step (",
                                                  request.from_step(), ")")});
  }
  if (request.max_points() < 0) {
    violations.push_back({"max_points", absl::StrCat("is ", request.max_points(), ": use 0 for ",
                                                     kDefaultPoints, ", or 1 to ", kMaxPoints)});
  }
  return violations.empty() ? absl::OkStatus() : InvalidFields(violations, "INVALID_REQUEST");
}

absl::Status CheckStream(const v1::StreamMetricsRequest& request) {
  std::vector<FieldViolation> violations;
  if (request.from_step() < 0) {
    violations.push_back({"from_step", absl::StrCat("is ", request.from_step(),
                                                    ": steps count from 1; leave it out for all")});
  }
  if (request.from_generation() < 0) {
    violations.push_back(
        {"from_generation", absl::StrCat("is ", request.from_generation(),
                                         ": generations count from 1; leave it out for all")});
  }
  return violations.empty() ? absl::OkStatus() : InvalidFields(violations, "INVALID_REQUEST");
}

}  // namespace

grpc::ServerUnaryReactor* MetricsService::QueryMetrics(grpc::CallbackServerContext* context,
                                                       const v1::QueryMetricsRequest* request,
                                                       v1::QueryMetricsResponse* response) {
  const absl::Status status = CheckQuery(*request);
  if (!status.ok()) {
    return Finish(context, status);
  }
  const auto job = FindJob(parts_.core->jobs(), request->name());
  if (!job.ok()) {
    return Finish(context, job.status());
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  return RunBlocking(
      parts_.blocking_pool, reactor, [this, reactor, request, response, id = (*job)->id] {
        const int points = request->max_points() == 0 ? kDefaultPoints
                                                      : std::min(request->max_points(), kMaxPoints);
        auto rows = parts_.core->metrics().Query(id, std::max<int64_t>(request->from_step(), 1),
                                                 request->to_step(), points);
        if (rows.ok()) {
          for (v1::StepMetrics& row : *rows) {
            *response->add_steps() = std::move(row);
          }
        }
        reactor->Finish(ToWireStatus(rows.status()));
      });
}

grpc::ServerWriteReactor<v1::StreamMetricsResponse>* MetricsService::StreamMetrics(
    grpc::CallbackServerContext* context, const v1::StreamMetricsRequest* request) {
  using Response = v1::StreamMetricsResponse;
  const absl::Status status = CheckStream(*request);
  if (!status.ok()) {
    return EndedStream<Response>(status);
  }
  auto job = FindJob(parts_.core->jobs(), request->name());
  if (!job.ok()) {
    return EndedStream<Response>(job.status());
  }
  const StepPosition after{.generation = request->from_generation(),
                           .step = std::max<int64_t>(request->from_step(), 1) - 1};
  auto stream = std::make_shared<MetricsStream>(parts_.streams, parts_.blocking_pool,
                                                parts_.slow_reader_limit, parts_.core,
                                                *std::move(job), after);
  stream->KeepWhile(AccessLease(
      parts_.access, GrantOf(parts_.access, *context, parts_.clock->Now()), parts_.clock));
  stream->Subscribe();
  return stream->Open(PrincipalOf(*context));
}

}  // namespace lasp::server
