// The coordinator's end of one agent's stream, as the core sees it.
#pragma once

#include "absl/status/status.h"
#include "lasp/v1/worker_service.pb.h"

namespace lasp::server {

// Implemented over gRPC by the worker service and in memory by tests. Thread-safe. The core calls
// it from its own threads and never after it has dropped its reference.
class AgentLink {
 public:
  virtual ~AgentLink() = default;

  // Queues a message behind those before it. Never blocks; a link whose bounded queue is full ends
  // its stream instead.
  virtual void Send(lasp::v1::ConnectResponse response) = 0;

  // Ends the stream with `status` once the messages before it are out; later ones are dropped.
  virtual void Close(const absl::Status& status) = 0;
};

}  // namespace lasp::server
