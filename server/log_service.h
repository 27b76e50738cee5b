// The logs of ranks, over gRPC.
#pragma once

#include "lasp/v1/log_service.grpc.pb.h"
#include "server/service_parts.h"

namespace lasp::server {

class LogService final : public v1::LogService::CallbackService {
 public:
  explicit LogService(const ServiceParts& parts) : parts_(parts) {}

  grpc::ServerWriteReactor<v1::StreamLogsResponse>* StreamLogs(
      grpc::CallbackServerContext* context, const v1::StreamLogsRequest* request) override;

 private:
  const ServiceParts parts_;
};

}  // namespace lasp::server
