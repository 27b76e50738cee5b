#include "worker/agent/coordinator_channel.h"

#include <utility>

#include "proto/rpc/channel.h"
#include "proto/rpc/log.h"
#include "proto/rpc/status_macros.h"

namespace lasp::worker {

absl::StatusOr<CoordinatorChannel> CoordinatorChannel::Open(std::string address, TlsFiles files) {
  CoordinatorChannel channel(std::move(address), std::move(files));
  LASP_RETURN_IF_ERROR(channel.Load());
  return channel;
}

absl::Status CoordinatorChannel::Load() {
  LASP_ASSIGN_OR_RETURN(TlsIdentity identity, LoadTlsIdentity(files_));
  channel_ = NewChannel(address_, {.tls = std::move(identity)});
  return absl::OkStatus();
}

const std::shared_ptr<grpc::Channel>& CoordinatorChannel::Latest() {
  // The stamps first: what changes while it is read is read again.
  const std::array<FileStamp, 3> stamps = files_.Stamps();
  if (stamps != stamps_) {
    stamps_ = stamps;
    if (const absl::Status status = Load(); status.ok()) {
      LASP_LOG(kInfo, "new certificates are in use");
    } else {
      LASP_LOG(kError, "changed certificates are of no use; the ones before stay",
               {{"error", status.message()}});
    }
  }
  return channel_;
}

}  // namespace lasp::worker
