#include "server/guarded_service.h"

#include <google/protobuf/descriptor.h>
#include <grpcpp/impl/rpc_service_method.h>
#include <grpcpp/server_context.h>

#include <deque>

#include "absl/strings/str_cat.h"
#include "server/access_interceptor.h"

namespace lasp::server {
namespace {

using grpc::internal::MethodHandler;
using grpc::internal::RpcMethod;
using grpc::internal::RpcServiceMethod;

// Has the method's own handler fail a refused call, as it does with a request that does not parse.
// The interceptor then puts its verdict in the place of that status.
class GuardedHandler final : public MethodHandler {
 public:
  explicit GuardedHandler(MethodHandler* inner) : inner_(inner) {}

  void RunHandler(const HandlerParameter& call) override {
    if (!WasRefused(*call.server_context)) {
      inner_->RunHandler(call);
      return;
    }
    inner_->RunHandler(HandlerParameter(call.call, call.server_context, call.request,
                                        grpc::Status(grpc::StatusCode::UNAUTHENTICATED, ""),
                                        call.internal_data, call.call_requester));
  }

  void* Deserialize(grpc_call* call, grpc_byte_buffer* bytes, grpc::Status* status,
                    void** data) override {
    return inner_->Deserialize(call, bytes, status, data);
  }

 private:
  MethodHandler* const inner_;
};

RpcMethod::RpcType TypeOf(const google::protobuf::MethodDescriptor& method) {
  if (method.client_streaming()) {
    return method.server_streaming() ? RpcMethod::BIDI_STREAMING : RpcMethod::CLIENT_STREAMING;
  }
  return method.server_streaming() ? RpcMethod::SERVER_STREAMING : RpcMethod::NORMAL_RPC;
}

class GuardedService final : public grpc::Service {
 public:
  GuardedService(grpc::Service* service, const std::string& name) {
    const auto* descriptor =
        google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(name);
    for (int i = 0; i < descriptor->method_count(); ++i) {
      paths_.push_back(absl::StrCat("/", name, "/", descriptor->method(i)->name()));
      // Generated services number their methods as the descriptor does.
      auto* method =
          new RpcServiceMethod(paths_.back().c_str(), TypeOf(*descriptor->method(i)),
                               new GuardedHandler((service->*&GuardedService::GetHandler)(i)));
      method->SetServerApiType(RpcServiceMethod::ApiType::CALL_BACK);
      AddMethod(method);
    }
  }

 private:
  // gRPC keeps the pointers to the names.
  std::deque<std::string> paths_;
};

}  // namespace

std::unique_ptr<grpc::Service> GuardService(grpc::Service* service, const std::string& name) {
  return std::make_unique<GuardedService>(service, name);
}

}  // namespace lasp::server
