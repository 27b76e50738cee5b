#include "server/server_service.h"

#include "proto/rpc/version.h"
#include "server/proto_time.h"
#include "server/unary_call.h"

namespace lasp::server {

ServerService::ServerService(absl::Time start_time) {
  info_.set_version(Version());
  info_.set_revision(Revision());
  info_.add_api_versions("lasp.v1");
  info_.set_worker_protocol_version(kWorkerProtocolVersion);
  for (const char* feature : {"CPU", "TRANSNORMER", "LASP", "DDP"}) {
    info_.add_features(feature);
  }
  *info_.mutable_start_time() = ToProtoTime(start_time);
}

grpc::ServerUnaryReactor* ServerService::GetServerInfo(grpc::CallbackServerContext* context,
                                                       const v1::GetServerInfoRequest* /*request*/,
                                                       v1::ServerInfo* response) {
  *response = info_;
  return Finish(context, absl::OkStatus());
}

}  // namespace lasp::server
