#include "server/grpc_listener.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/impl/server_builder_option.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include "absl/strings/str_cat.h"
#include "proto/rpc/channel.h"
#include "proto/rpc/clock.h"
#include "proto/rpc/status_macros.h"
#include "server/access_interceptor.h"
#include "server/call_counter.h"
#include "server/guarded_service.h"
#include "server/listen_address.h"
#include "server/malformed_request.h"

namespace lasp::server {
namespace {

// Linking the reflection library adds it to every server of the process; this takes it out again
// where it is not wanted.
class ReflectionOption final : public grpc::ServerBuilderOption {
 public:
  explicit ReflectionOption(bool wanted) : wanted_(wanted) {}

  void UpdateArguments(grpc::ChannelArguments* /*arguments*/) override {}

  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    const std::string name = grpc::reflection::ProtoServerReflectionPlugin().name();
    std::erase_if(*plugins, [&name](const auto& plugin) { return plugin->name() == name; });
    if (wanted_) {
      plugins->push_back(std::make_unique<grpc::reflection::ProtoServerReflectionPlugin>());
    }
  }

 private:
  const bool wanted_;
};

int ToMilliseconds(absl::Duration duration) {
  return static_cast<int>(absl::ToInt64Milliseconds(duration));
}

// What a connection may cost.
void ApplyLimits(const GrpcListenerOptions& options, grpc::ServerBuilder* builder) {
  builder->AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS,
                              ToMilliseconds(options.handshake_timeout));
  builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS,
                              ToMilliseconds(options.idle_timeout));
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_calls_a_connection);
  grpc::ResourceQuota quota(options.flag);
  quota.Resize(static_cast<size_t>(options.max_buffer_bytes));
  builder->SetResourceQuota(quota);
  if (options.call_rate != nullptr) {
    // A request of up to twice the limit is taken, so that its sender is told what the limit is.
    builder->SetMaxReceiveMessageSize(2 * options.max_message_bytes);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcListener>> GrpcListener::Start(
    const GrpcListenerOptions& options) {
  LASP_ASSIGN_OR_RETURN(const ListenAddress listen, ListenAddress::Parse(options.address));
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  ApplyServerPolicy(&builder);
  ApplyLimits(options, &builder);
  if (options.many_connections) {
    // An agent's stream carries some bytes a second: a small window and no estimate of the path's
    // bandwidth keep what a connection may hold small.
    builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 64 << 10);
    builder.AddChannelArgument(GRPC_ARG_TCP_READ_CHUNK_SIZE, 2 << 10);
  }
  Parts parts;
  parts.credentials = options.credentials;
  ConnectionLimits connections = options.connections;
  // Agents send within one call; of others several large requests may be under way at once.
  constexpr int64_t kRequestsUnderWay = 4;
  connections.bytes_a_call =
      options.many_connections ? 0 : kRequestsUnderWay * options.max_message_bytes;
  if (options.many_connections) {
    connections.host_bytes_a_second = 0;
  }
  parts.connections =
      std::make_unique<ConnectionTable>(connections, &SystemClock(), options.on_refusal);
  LASP_ASSIGN_OR_RETURN(parts.acceptor, ConnectionAcceptor::Listen(options.flag, listen));
  auto door = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
      options.credentials != nullptr ? options.credentials : grpc::InsecureServerCredentials());
  for (size_t i = 0; i < options.services.size(); ++i) {
    grpc::Service* service = options.services[i];
    if (options.call_rate != nullptr) {
      service = parts.guarded.emplace_back(GuardService(service, options.service_names[i])).get();
    }
    builder.RegisterService(service);
  }
  // Also what lets a port start that serves health alone.
  parts.unknown_methods = std::make_unique<UnknownMethods>(options.flag, options.service_names);
  builder.RegisterCallbackGenericService(parts.unknown_methods.get());
  builder.SetOption(std::make_unique<ReflectionOption>(options.reflection));
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> factories;
  factories.push_back(CallCounter(parts.connections.get()));
  // In this order, so that a refusal is what is sent, and a status is counted as it is sent.
  if (options.metrics != nullptr) {
    factories.push_back(MalformedRequestInterceptor());
  }
  if (options.call_rate != nullptr) {
    factories.push_back(AccessInterceptor(options.access, options.refusals,
                                          {.rate = options.call_rate,
                                           .connections = parts.connections.get(),
                                           .max_message_bytes = options.max_message_bytes,
                                           .on_refusal = options.on_refusal},
                                          &SystemClock()));
  }
  if (options.metrics != nullptr) {
    factories.push_back(options.metrics->NewInterceptorFactory());
  }
  builder.experimental().SetInterceptorCreators(std::move(factories));
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) {
    return absl::InternalError(absl::StrCat("--", options.flag, ": gRPC does not start"));
  }
  const std::string address = absl::StrCat(listen.host, ":", parts.acceptor->port());
  std::unique_ptr<GrpcListener> listener(
      new GrpcListener(std::move(parts), std::move(server), std::move(door), address));
  listener->parts_.acceptor->Start(
      listener->parts_.connections.get(), kKeepaliveTimeout,
      [to = listener->door_.get()](int accepted_by, UniqueFd connection) {
        grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters parameters;
        parameters.listener_fd = accepted_by;
        parameters.fd = connection.Release();
        to->HandleNewConnection(&parameters);
      });
  return listener;
}

GrpcListener::~GrpcListener() { Shutdown(absl::ZeroDuration()); }

std::shared_ptr<grpc::Channel> GrpcListener::InProcessChannel() {
  return server_->InProcessChannel(grpc::ChannelArguments());
}

void GrpcListener::SetServing(const std::string& service, bool serving) {
  server_->GetHealthCheckService()->SetServingStatus(service, serving);
}

void GrpcListener::Shutdown(absl::Duration grace) {
  parts_.acceptor->Stop();
  server_->Shutdown(absl::ToChronoTime(absl::Now() + grace));
  server_->Wait();
}

}  // namespace lasp::server
