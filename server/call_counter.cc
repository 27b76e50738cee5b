#include "server/call_counter.h"

#include <grpcpp/server_context.h>

namespace lasp::server {
namespace {

class Factory final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit Factory(ConnectionTable* connections) : connections_(connections) {}

  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override {
    connections_->BeginCall(info->server_context()->peer());
    return nullptr;
  }

 private:
  ConnectionTable* const connections_;
};

}  // namespace

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> CallCounter(
    ConnectionTable* connections) {
  return std::make_unique<Factory>(connections);
}

}  // namespace lasp::server
