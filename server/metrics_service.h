// The step metrics of jobs, over gRPC.
#pragma once

#include "lasp/v1/metrics_service.grpc.pb.h"
#include "server/service_parts.h"

namespace lasp::server {

class MetricsService final : public v1::MetricsService::CallbackService {
 public:
  explicit MetricsService(const ServiceParts& parts) : parts_(parts) {}

  grpc::ServerUnaryReactor* QueryMetrics(grpc::CallbackServerContext* context,
                                         const v1::QueryMetricsRequest* request,
                                         v1::QueryMetricsResponse* response) override;
  grpc::ServerWriteReactor<v1::StreamMetricsResponse>* StreamMetrics(
      grpc::CallbackServerContext* context, const v1::StreamMetricsRequest* request) override;

 private:
  const ServiceParts parts_;
};

}  // namespace lasp::server
