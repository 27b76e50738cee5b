#include "server/worker_admin_service.h"

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/resource_name.h"
#include "proto/rpc/status_macros.h"
#include "server/access_interceptor.h"
#include "server/principal.h"
#include "server/unary_call.h"

namespace lasp::server {
namespace {

// Leaves room below the 4 MiB a message may have.
constexpr size_t kMaxPageBytes = 3 << 20;
// In the place of a job's name.
constexpr char kHiddenJob[] = "projects/-/trainingJobs/-";

absl::Status WorkerNotFound(absl::string_view name) {
  return ErrorWithReason(
      absl::StatusCode::kNotFound,
      absl::StrCat("there is no worker ", name, ": list the workers to see their names"),
      "WORKER_NOT_FOUND", {{"name", std::string(name)}});
}

// That a slot is held is for all to see; by whom, for those who may see the job.
void HideJobs(const Grant& grant, v1::Worker* worker) {
  for (v1::Slot& slot : *worker->mutable_slots()) {
    if (!slot.training_job().empty() && !grant.MaySeeJob(slot.training_job())) {
      slot.set_training_job(kHiddenJob);
    }
  }
}

}  // namespace

grpc::ServerUnaryReactor* WorkerAdminService::GetWorker(grpc::CallbackServerContext* context,
                                                        const v1::GetWorkerRequest* request,
                                                        v1::Worker* response) {
  const auto id = ParseWorkerName(request->name());
  if (!id.ok()) {
    return Finish(context, id.status());
  }
  const WorkerViewPtr view = parts_.core->workers().Find(*id);
  if (view == nullptr) {
    return Finish(context, WorkerNotFound(request->name()));
  }
  *response = view->ToProto();
  HideJobs(*GrantOf(parts_.access, *context, parts_.clock->Now()), response);
  return Finish(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* WorkerAdminService::ListWorkers(grpc::CallbackServerContext* context,
                                                          const v1::ListWorkersRequest* request,
                                                          v1::ListWorkersResponse* response) {
  return Finish(context,
                List(*request, *GrantOf(parts_.access, *context, parts_.clock->Now()), response));
}

absl::Status WorkerAdminService::List(const v1::ListWorkersRequest& request, const Grant& grant,
                                      v1::ListWorkersResponse* response) const {
  LASP_ASSIGN_OR_RETURN(const int page_size, ResolvePageSize(request.page_size()));
  const std::vector<std::string> bound = {"workers"};
  std::string after;
  if (!request.page_token().empty()) {
    LASP_ASSIGN_OR_RETURN(after,
                          page_tokens_.Decode(bound, request.page_token(), parts_.clock->Now()));
  }
  size_t bytes = 0;
  for (const WorkerViewPtr& view : parts_.core->workers().After(after, page_size + 1)) {
    if (response->workers_size() == page_size || bytes > kMaxPageBytes) {
      const auto last = ParseWorkerName(response->workers(response->workers_size() - 1).name());
      LASP_RETURN_IF_ERROR(last.status());
      response->set_next_page_token(page_tokens_.Encode(bound, *last, parts_.clock->Now()));
      break;
    }
    *response->add_workers() = view->ToProto();
    HideJobs(grant, response->mutable_workers(response->workers_size() - 1));
    bytes += response->workers(response->workers_size() - 1).ByteSizeLong();
  }
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* WorkerAdminService::DrainWorker(grpc::CallbackServerContext* context,
                                                          const v1::DrainWorkerRequest* request,
                                                          v1::Worker* response) {
  const auto id = ParseWorkerName(request->name());
  if (!id.ok()) {
    return Finish(context, id.status());
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  parts_.core->controller().DrainWorker(*request,
                                        CallerOf(parts_.access, *context, parts_.clock->Now()),
                                        [reactor, response](absl::StatusOr<WorkerViewPtr> worker) {
                                          if (worker.ok()) {
                                            *response = (*worker)->ToProto();
                                          }
                                          reactor->Finish(ToWireStatus(worker.status()));
                                        });
  return reactor;
}

}  // namespace lasp::server
