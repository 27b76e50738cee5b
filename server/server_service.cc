#include "server/server_service.h"

#include <optional>
#include <utility>

#include "proto/rpc/disk_space.h"
#include "proto/rpc/proto_time.h"
#include "proto/rpc/protocol_range.h"
#include "proto/rpc/version.h"
#include "server/access_interceptor.h"
#include "server/unary_call.h"

namespace lasp::server {

ServerService::ServerService(const ServiceParts& parts, std::string data_dir, absl::Time start_time)
    : parts_(parts), data_dir_(std::move(data_dir)) {
  info_.set_version(Version());
  info_.set_revision(Revision());
  info_.add_api_versions("lasp.v1");
  info_.set_worker_protocol_version(kWorkerProtocol.newest);
  info_.set_oldest_worker_protocol_version(kWorkerProtocol.oldest);
  for (const char* feature :
       {"CPU", "TRANSNORMER", "LASP", "LEGACY_DDP", "DDP", "ZERO1", "ZERO2", "ZERO3"}) {
    info_.add_features(feature);
  }
  *info_.mutable_start_time() = ToProtoTime(start_time);
}

grpc::ServerUnaryReactor* ServerService::GetServerInfo(grpc::CallbackServerContext* context,
                                                       const v1::GetServerInfoRequest* /*request*/,
                                                       v1::ServerInfo* response) {
  *response = info_;
  if (parts_.access != nullptr) {
    const absl::Time end = GrantOf(parts_.access, *context, parts_.clock->Now())->end;
    if (end != absl::InfiniteFuture()) {
      *response->mutable_token_expire_time() = ToProtoTime(end);
    }
  }
  response->set_store_error(std::string(parts_.core->store().health().message()));
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  return RunBlocking(parts_.blocking_pool, reactor, [this, reactor, response] {
    if (const std::optional<DiskSpace> disk = ReadDiskSpace(data_dir_)) {
      response->set_store_disk_free_bytes(disk->free_bytes);
      response->set_store_disk_size_bytes(disk->size_bytes);
    }
    *response->mutable_time() = ToProtoTime(parts_.clock->Now());
    reactor->Finish(grpc::Status::OK);
  });
}

}  // namespace lasp::server
