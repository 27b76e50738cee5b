#include "worker/agent/health_server.h"

#include <grpcpp/server_builder.h>

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/rpc/channel.h"

namespace lasp::worker {

absl::StatusOr<std::unique_ptr<HealthServer>> HealthServer::Start(const std::string& address) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  ApplyServerPolicy(&builder);
  auto other_methods = std::make_unique<grpc::CallbackGenericService>();
  builder.RegisterCallbackGenericService(other_methods.get());
  int port = 0;
  builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    return absl::UnavailableError(absl::StrCat("cannot serve health on ", address,
                                               ": the address is in use or not of this host"));
  }
  return std::unique_ptr<HealthServer>(
      new HealthServer(std::move(other_methods), std::move(server),
                       absl::StrCat(address.substr(0, address.rfind(':')), ":", port)));
}

HealthServer::HealthServer(std::unique_ptr<grpc::CallbackGenericService> other_methods,
                           std::unique_ptr<grpc::Server> server, std::string address)
    : other_methods_(std::move(other_methods)),
      server_(std::move(server)),
      address_(std::move(address)) {
  server_->GetHealthCheckService()->SetServingStatus("liveness", true);
  SetReady(false);
}

HealthServer::~HealthServer() { server_->Shutdown(std::chrono::system_clock::now()); }

void HealthServer::SetReady(bool ready) {
  server_->GetHealthCheckService()->SetServingStatus("", ready);
  server_->GetHealthCheckService()->SetServingStatus("readiness", ready);
}

}  // namespace lasp::worker
