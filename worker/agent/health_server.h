// gRPC health v1 for probes, plaintext and alone on its port.
#pragma once

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace lasp::worker {

// Services "" and "readiness": connected to the coordinator; "liveness": the process serves.
// Thread-safe.
class HealthServer {
 public:
  // Serves on `address`; port 0 picks a free one. UNAVAILABLE naming the address where it is taken.
  static absl::StatusOr<std::unique_ptr<HealthServer>> Start(const std::string& address);
  ~HealthServer();

  void SetReady(bool ready);

  // host:port with the port in use.
  const std::string& address() const { return address_; }

 private:
  HealthServer(std::unique_ptr<grpc::CallbackGenericService> other_methods,
               std::unique_ptr<grpc::Server> server, std::string address);

  // Outlives the server. Answers UNIMPLEMENTED; without a service of ours gRPC would poll no queue.
  const std::unique_ptr<grpc::CallbackGenericService> other_methods_;
  const std::unique_ptr<grpc::Server> server_;
  const std::string address_;
};

}  // namespace lasp::worker
