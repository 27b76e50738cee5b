#include "server/access_interceptor.h"

#include <google/protobuf/message.h>
#include <grpc/grpc.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "lasp/v1/training_job_service.grpc.pb.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/status_macros.h"
#include "server/principal.h"
#include "server/wire_status.h"

namespace lasp::server {
namespace {

using grpc::experimental::InterceptionHookPoints;
using Metadata = std::multimap<grpc::string_ref, grpc::string_ref>;

constexpr char kAuthorization[] = "authorization";
// No client can send names that begin with a colon: HTTP/2 keeps them for itself.
constexpr char kCallerKey[] = ":lasp-caller";
constexpr char kRefusedKey[] = ":lasp-refused";

absl::string_view ToView(const grpc::string_ref& text) { return {text.data(), text.size()}; }

// The first of these fields that a request has is what it is about.
std::string ResourceOf(const google::protobuf::Message& request) {
  const google::protobuf::Descriptor* type = request.GetDescriptor();
  const google::protobuf::Reflection* reflection = request.GetReflection();
  for (const char* name : {"name", "parent"}) {
    const auto* field = type->FindFieldByName(name);
    if (field != nullptr && field->type() == google::protobuf::FieldDescriptor::TYPE_STRING) {
      return reflection->GetString(request, field);
    }
  }
  const auto* job = type->FindFieldByName("training_job");
  return job == nullptr ? "" : ResourceOf(reflection->GetMessage(request, job));
}

// Of a request that is bytes still. Its parent is field 1: the message that has nothing else reads
// it as the method's own does.
std::string ResourceOf(const grpc::ByteBuffer& bytes) {
  grpc::ByteBuffer copy = bytes;
  v1::GetTrainingJobRequest request;
  return grpc::SerializationTraits<google::protobuf::Message>::Deserialize(&copy, &request).ok()
             ? request.name()
             : "";
}

// Lives as long as its call.
class Interceptor final : public grpc::experimental::Interceptor {
 public:
  Interceptor(const AccessControl* access, RefusalLog* refusals, const CallLimits* limits,
              const Clock* clock, const AccessRule* rule, grpc::experimental::ServerRpcInfo* info)
      : access_(access),
        refusals_(refusals),
        limits_(*limits),
        clock_(clock),
        rule_(rule),
        info_(info) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::POST_RECV_INITIAL_METADATA)) {
      Judge(methods);
    }
    if (!verdict_.ok() &&
        methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      methods->ModifySendStatus(ToWireStatus(verdict_));
    }
    methods->Proceed();
  }

 private:
  void Judge(grpc::experimental::InterceptorBatchMethods* methods) {
    Metadata& metadata = *methods->GetRecvInitialMetadata();
    if (access_ != nullptr) {
      Authenticate(methods, &metadata);
      if (!verdict_.ok()) {
        RecordRefusal(methods);
      }
    }
    if (absl::Status within = CheckLimits(methods); !within.ok()) {
      verdict_ = std::move(within);
    }
    if (verdict_.ok()) {
      return;
    }
    metadata.emplace(kRefusedKey, "");
    if (rule_ != nullptr && absl::StartsWith(rule_->method, "/grpc.")) {
      // gRPC's own reflection is not guarded: its call ends here.
      grpc_call_cancel_with_status(info_->server_context()->c_call(),
                                   static_cast<grpc_status_code>(verdict_.code()),
                                   std::string(verdict_.message()).c_str(), nullptr);
    }
  }

  void Authenticate(grpc::experimental::InterceptorBatchMethods* methods, Metadata* sent_metadata) {
    Metadata& metadata = *sent_metadata;
    std::vector<absl::string_view> authorization;
    const auto sent = metadata.equal_range(kAuthorization);
    for (auto it = sent.first; it != sent.second; ++it) {
      authorization.push_back(ToView(it->second));
    }
    absl::StatusOr<GrantPtr> grant = access_->Authenticate(authorization, clock_->Now());
    for (const char* key : {kAuthorization, kCallerKey, kRefusedKey}) {
      metadata.erase(key);
    }
    verdict_ = grant.status();
    if (grant.ok()) {
      grant_ = *std::move(grant);
      metadata.emplace(kCallerKey, grant_->name);
      verdict_ = Authorize(methods);
    }
  }

  // Whoever has no token that is known counts as the host it calls from.
  absl::Status CheckLimits(grpc::experimental::InterceptorBatchMethods* methods) const {
    const std::string peer = info_->server_context()->peer();
    absl::Status status =
        limits_.rate->Admit(grant_ == nullptr ? PrincipalOfPeer(peer) : grant_->name);
    if (!status.ok()) {
      limits_.on_refusal("max_calls_a_second");
      return status;
    }
    if (grant_ != nullptr) {
      LASP_RETURN_IF_ERROR(limits_.connections->Use(peer, grant_->name));
    }
    const size_t size = RequestBytes(methods);
    if (size > static_cast<size_t>(limits_.max_message_bytes)) {
      limits_.on_refusal("max_message_bytes");
      return ErrorWithReason(
          absl::StatusCode::kResourceExhausted,
          absl::StrCat("the request has ", size, " bytes: at most ", limits_.max_message_bytes,
                       ", as the coordinator's --max_message_bytes says"),
          "MESSAGE_TOO_LARGE");
    }
    return absl::OkStatus();
  }

  // 0 where the request is not there: it comes later, or does not parse.
  size_t RequestBytes(grpc::experimental::InterceptorBatchMethods* methods) const {
    const void* const request = methods->GetRecvMessage();
    if (request == nullptr || rule_ == nullptr || absl::StartsWith(rule_->method, "/grpc.")) {
      return 0;
    }
    return rule_->takes_bytes
               ? static_cast<const grpc::ByteBuffer*>(request)->Length()
               : static_cast<const google::protobuf::Message*>(request)->ByteSizeLong();
  }

  absl::Status Authorize(grpc::experimental::InterceptorBatchMethods* methods) const {
    if (rule_ == nullptr) {
      return absl::OkStatus();  // it is answered that there is no such method
    }
    if (rule_->scope == Scope::kProject && methods->GetRecvMessage() == nullptr) {
      return absl::OkStatus();  // it does not parse, and is answered so
    }
    return AccessControl::Authorize(*grant_, *rule_,
                                    rule_->scope == Scope::kProject ? Resource(methods) : "");
  }

  // What the call is about; empty where that cannot be told.
  std::string Resource(grpc::experimental::InterceptorBatchMethods* methods) const {
    const void* const request = methods->GetRecvMessage();
    if (request == nullptr || rule_ == nullptr || absl::StartsWith(rule_->method, "/grpc.")) {
      return "";
    }
    return rule_->takes_bytes ? ResourceOf(*static_cast<const grpc::ByteBuffer*>(request))
                              : ResourceOf(*static_cast<const google::protobuf::Message*>(request));
  }

  void RecordRefusal(grpc::experimental::InterceptorBatchMethods* methods) const {
    Caller caller{
        .principal = "", .role = "", .peer = PrincipalOfPeer(info_->server_context()->peer())};
    if (grant_ != nullptr) {
      caller.principal = grant_->name;
      caller.role = RoleName(grant_->role);
    }
    // `/package.Service/Method`, and the log has `Service.Method`.
    const absl::string_view path = rule_ == nullptr ? "" : rule_->method;
    const size_t service = path.rfind('.', path.rfind('/')) + 1;
    refusals_->Add(caller, absl::StrReplaceAll(path.substr(service), {{"/", "."}}),
                   grant_ == nullptr ? "" : Resource(methods), verdict_);
  }

  const AccessControl* const access_;
  RefusalLog* const refusals_;
  const CallLimits& limits_;
  const Clock* const clock_;
  const AccessRule* const rule_;
  grpc::experimental::ServerRpcInfo* const info_;
  // Holds the name that the metadata refers to.
  GrantPtr grant_;
  absl::Status verdict_;
};

class Factory final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  Factory(const AccessControl* access, RefusalLog* refusals, CallLimits limits, const Clock* clock)
      : access_(access), refusals_(refusals), limits_(std::move(limits)), clock_(clock) {}

  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override {
    const AccessRule* rule = FindAccessRule(info->method());
    return rule != nullptr && rule->audience == Audience::kAnyone
               ? nullptr
               : new Interceptor(access_, refusals_, &limits_, clock_, rule, info);
  }

 private:
  const AccessControl* const access_;
  RefusalLog* const refusals_;
  const CallLimits limits_;
  const Clock* const clock_;
};

}  // namespace

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> AccessInterceptor(
    const AccessControl* access, RefusalLog* refusals, const CallLimits& limits,
    const Clock* clock) {
  return std::make_unique<Factory>(access, refusals, limits, clock);
}

bool WasRefused(const grpc::ServerContextBase& context) {
  return context.client_metadata().count(kRefusedKey) > 0;
}

std::string TokenName(const grpc::ServerContextBase& context) {
  const auto caller = context.client_metadata().find(kCallerKey);
  return caller == context.client_metadata().end()
             ? ""
             : std::string(caller->second.data(), caller->second.size());
}

GrantPtr GrantOf(const AccessControl* access, const grpc::ServerContextBase& context,
                 absl::Time now) {
  if (access == nullptr) {
    return UnlimitedGrant();
  }
  const auto caller = context.client_metadata().find(kCallerKey);
  return caller == context.client_metadata().end() ? EmptyGrant()
                                                   : access->Present(ToView(caller->second), now);
}

std::function<absl::Status()> AccessLease(const AccessControl* access, GrantPtr grant,
                                          const Clock* clock) {
  if (access == nullptr) {
    return nullptr;
  }
  return [access, grant = std::move(grant), clock] {
    return access->Holds(*grant, clock->Now())
               ? absl::OkStatus()
               : ErrorWithReason(absl::StatusCode::kUnauthenticated,
                                 absl::StrCat("the token ", grant->name,
                                              " has ended or no longer allows the same"),
                                 "TOKEN_CHANGED");
  };
}

}  // namespace lasp::server
