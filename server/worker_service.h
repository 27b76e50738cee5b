// The worker plane: one stream an agent.
#pragma once

#include "lasp/v1/worker_service.grpc.pb.h"
#include "server/service_parts.h"

namespace lasp::server {

class WorkerService final : public v1::WorkerService::CallbackService {
 public:
  explicit WorkerService(const ServiceParts& parts) : parts_(parts) {}

  grpc::ServerBidiReactor<v1::ConnectRequest, v1::ConnectResponse>* Connect(
      grpc::CallbackServerContext* context) override;

 private:
  const ServiceParts parts_;
};

}  // namespace lasp::server
