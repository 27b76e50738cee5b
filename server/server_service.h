// What this coordinator is and can do.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "lasp/v1/server_service.grpc.pb.h"
#include "server/service_parts.h"

namespace lasp::server {

class ServerService final : public v1::ServerService::CallbackService {
 public:
  // `data_dir` holds the store.
  ServerService(const ServiceParts& parts, std::string data_dir, absl::Time start_time);

  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* context,
                                          const v1::GetServerInfoRequest* request,
                                          v1::ServerInfo* response) override;

 private:
  const ServiceParts parts_;
  const std::string data_dir_;
  // What stays as it is.
  v1::ServerInfo info_;
};

}  // namespace lasp::server
