// One gRPC server on one port, with lasp's transport policy.
#pragma once

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/impl/service_type.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/rpc/channel.h"
#include "server/access_control.h"
#include "server/call_rate.h"
#include "server/connection_acceptor.h"
#include "server/connection_table.h"
#include "server/refusal_log.h"
#include "server/rpc_metrics.h"
#include "server/unknown_methods.h"

namespace lasp::server {

struct GrpcListenerOptions {
  // The flag that names the address, for messages: "api_address".
  std::string flag = {};
  // host:port; port 0 picks a free one.
  std::string address = {};
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
  ConnectionLimits connections = {};
  // A connection without a call is closed after this long; agents always have one.
  absl::Duration idle_timeout = absl::Minutes(15);
  // What TLS and HTTP/2 may take to begin.
  absl::Duration handshake_timeout = absl::Seconds(30);
  // What all connections together may hold of requests that are not read yet.
  int64_t max_buffer_bytes = int64_t{1} << 30;
  // Calls that may be under way over one connection.
  int max_calls_a_connection = 1'100;
  // Of a request.
  int max_message_bytes = kMaxMessageBytes;
  // Null for no limit of calls, nor of a token's connections. Not owned.
  CallRate* call_rate = nullptr;
  // Told the flag of a limit that was reached, from any thread.
  std::function<void(const char* flag)> on_refusal = [](const char* /*flag*/) {};
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

  // Connections that are open.
  size_t connection_count() const { return parts_.connections->size(); }

  // What the health service answers for `service`; "" is the server as a whole.
  void SetServing(const std::string& service, bool serving);

  // Refuses new calls and waits for the present ones, at most `grace`; the rest is cancelled.
  void Shutdown(absl::Duration grace);

 private:
  // What outlives the server.
  struct Parts {
    std::unique_ptr<ConnectionTable> connections;
    std::unique_ptr<ConnectionAcceptor> acceptor;
    std::unique_ptr<UnknownMethods> unknown_methods;
    std::shared_ptr<grpc::ServerCredentials> credentials;
    std::vector<std::unique_ptr<grpc::Service>> guarded;
  };

  GrpcListener(Parts parts, std::unique_ptr<grpc::Server> server,
               std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> door,
               std::string address)
      : parts_(std::move(parts)),
        server_(std::move(server)),
        door_(std::move(door)),
        address_(std::move(address)) {}

  const Parts parts_;
  const std::unique_ptr<grpc::Server> server_;
  // Through which it gets its connections.
  const std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> door_;
  const std::string address_;
};

}  // namespace lasp::server
