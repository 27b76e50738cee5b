// One gRPC server on one port, with lasp's transport policy.
#pragma once

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/impl/service_type.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/access_control.h"
#include "server/refusal_log.h"
#include "server/rpc_metrics.h"
#include "server/unknown_methods.h"

namespace lasp::server {

struct GrpcListenerOptions {
  // The flag that names the address, for messages: "api_address".
  std::string flag;
  // host:port; port 0 picks a free one.
  std::string address;
  // Not owned; outlive the listener.
  std::vector<grpc::Service*> services = {};
  // Their full names, for callers of others.
  std::vector<std::string> service_names = {};
  // Whether clients may ask for the services' descriptors.
  bool reflection = false;
  // Whether connections are many and carry little (agents): small buffers for each.
  bool many_connections = false;
  // May be null. Not owned.
  RpcMetrics* metrics = nullptr;
  // Null for plaintext.
  std::shared_ptr<grpc::ServerCredentials> credentials = nullptr;
  // Judges every call; null where all may do everything. Not owned.
  const AccessControl* access = nullptr;
  // Where the refused are recorded; not null where `access` is not. Not owned.
  RefusalLog* refusals = nullptr;
};

// Serves from Start on, health v1 included: all services are SERVING until SetServing or Shutdown.
// Thread-safe.
class GrpcListener {
 public:
  // UNAVAILABLE, naming the port's holder, when the port is taken.
  static absl::StatusOr<std::unique_ptr<GrpcListener>> Start(const GrpcListenerOptions& options);

  ~GrpcListener();

  // With the port that was picked.
  const std::string& address() const { return address_; }

  // To this server without a socket and without TLS; calls are judged as all others. It must end
  // before the server does.
  std::shared_ptr<grpc::Channel> InProcessChannel();

  // What the health service answers for `service`; "" is the server as a whole.
  void SetServing(const std::string& service, bool serving);

  // Refuses new calls and waits for the present ones, at most `grace`; the rest is cancelled.
  void Shutdown(absl::Duration grace);

 private:
  // What outlives the server.
  struct Parts {
    std::unique_ptr<UnknownMethods> unknown_methods;
    std::shared_ptr<grpc::ServerCredentials> credentials;
    std::vector<std::unique_ptr<grpc::Service>> guarded;
  };

  GrpcListener(Parts parts, std::unique_ptr<grpc::Server> server, std::string address)
      : parts_(std::move(parts)), server_(std::move(server)), address_(std::move(address)) {}

  const Parts parts_;
  const std::unique_ptr<grpc::Server> server_;
  const std::string address_;
};

}  // namespace lasp::server
