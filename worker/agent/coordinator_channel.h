// The agent's way to the coordinator: where it is, and what the agent proves itself with.
#pragma once

#include <grpcpp/channel.h>

#include <array>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "proto/rpc/tls_identity.h"

namespace lasp::worker {

// Used by one thread at a time.
class CoordinatorChannel {
 public:
  // Reads the files, none for plaintext. Errors as LoadTlsIdentity.
  static absl::StatusOr<CoordinatorChannel> Open(std::string address, TlsFiles files);

  // To be asked before each dialling: a new channel where the files have changed since, for a
  // connection keeps what it was made with. Files of no use are logged, and the ones before stay.
  const std::shared_ptr<grpc::Channel>& Latest();

 private:
  CoordinatorChannel(std::string address, TlsFiles files)
      : address_(std::move(address)), files_(std::move(files)), stamps_(files_.Stamps()) {}

  absl::Status Load();

  std::string address_;
  TlsFiles files_;
  std::array<FileStamp, 3> stamps_;
  std::shared_ptr<grpc::Channel> channel_;
};

}  // namespace lasp::worker
