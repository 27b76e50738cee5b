#include "server/malformed_request.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/rpc/error_details.h"
#include "server/wire_status.h"

namespace lasp::server {
namespace {

// The full name of the message that "/service/method" takes.
std::string RequestName(absl::string_view path) {
  std::string method(absl::StripPrefix(path, "/"));
  std::replace(method.begin(), method.end(), '/', '.');
  const auto* descriptor =
      google::protobuf::DescriptorPool::generated_pool()->FindMethodByName(method);
  return descriptor == nullptr ? "message of this method" : descriptor->input_type()->full_name();
}

// Lives as long as its call.
class Interceptor final : public grpc::experimental::Interceptor {
 public:
  explicit Interceptor(const char* method) : method_(method) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(
            grpc::experimental::InterceptionHookPoints::PRE_SEND_STATUS)) {
      const grpc::Status status = methods->GetSendStatus();
      // Every error of ours has details.
      if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED &&
          status.error_details().empty()) {
        methods->ModifySendStatus(ToWireStatus(ErrorWithReason(
            absl::StatusCode::kInvalidArgument,
            absl::StrCat("the request is no ", RequestName(method_),
                         ": its bytes do not parse; make the client from the proto files of this "
                         "release"),
            "MALFORMED_REQUEST")));
      }
    }
    methods->Proceed();
  }

 private:
  const char* const method_;
};

class Factory final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override {
    return new Interceptor(info->method());
  }
};

}  // namespace

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>
MalformedRequestInterceptor() {
  return std::make_unique<Factory>();
}

}  // namespace lasp::server
