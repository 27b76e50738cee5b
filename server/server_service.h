// What this coordinator is and can do.
#pragma once

#include "absl/time/time.h"
#include "lasp/v1/server_service.grpc.pb.h"

namespace lasp::server {

class ServerService final : public v1::ServerService::CallbackService {
 public:
  explicit ServerService(absl::Time start_time);

  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* context,
                                          const v1::GetServerInfoRequest* request,
                                          v1::ServerInfo* response) override;

 private:
  v1::ServerInfo info_;
};

}  // namespace lasp::server
