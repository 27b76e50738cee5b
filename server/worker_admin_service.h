// What operators do with workers, over gRPC.
#pragma once

#include <string>

#include "lasp/v1/worker_admin_service.grpc.pb.h"
#include "server/page_token.h"
#include "server/service_parts.h"

namespace lasp::server {

class WorkerAdminService final : public v1::WorkerAdminService::CallbackService {
 public:
  // `page_secret` signs page tokens.
  WorkerAdminService(const ServiceParts& parts, std::string page_secret)
      : parts_(parts), page_tokens_(std::move(page_secret)) {}

  grpc::ServerUnaryReactor* GetWorker(grpc::CallbackServerContext* context,
                                      const v1::GetWorkerRequest* request,
                                      v1::Worker* response) override;
  grpc::ServerUnaryReactor* ListWorkers(grpc::CallbackServerContext* context,
                                        const v1::ListWorkersRequest* request,
                                        v1::ListWorkersResponse* response) override;
  grpc::ServerUnaryReactor* DrainWorker(grpc::CallbackServerContext* context,
                                        const v1::DrainWorkerRequest* request,
                                        v1::Worker* response) override;

 private:
  absl::Status List(const v1::ListWorkersRequest& request, const Grant& grant,
                    v1::ListWorkersResponse* response) const;

  const ServiceParts parts_;
  const PageTokenCodec page_tokens_;
};

}  // namespace lasp::server
