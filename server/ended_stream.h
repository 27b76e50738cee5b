// A server stream that ends before its first message.
#pragma once

#include <grpcpp/support/server_callback.h>

#include "absl/status/status.h"
#include "server/wire_status.h"

namespace lasp::server {

// For requests that are refused.
template <typename Response>
grpc::ServerWriteReactor<Response>* EndedStream(const absl::Status& status) {
  class Reactor final : public grpc::ServerWriteReactor<Response> {
   public:
    void OnDone() override { delete this; }
  };

  auto* reactor = new Reactor;
  reactor->Finish(ToWireStatus(status));
  return reactor;
}

}  // namespace lasp::server
