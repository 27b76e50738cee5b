#include "server/unknown_methods.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/version.h"
#include "server/wire_status.h"

namespace lasp::server {

UnknownMethods::UnknownMethods(absl::string_view flag, const std::vector<std::string>& services)
    : explanation_(absl::StrCat(
          " is not served at this address, the --", flag, " of lasp-server ", Version(),
          services.empty() ? "" : absl::StrCat(", which serves ", absl::StrJoin(services, ", ")),
          ": look at the port and at the client's release")) {}

grpc::ServerGenericBidiReactor* UnknownMethods::CreateReactor(
    grpc::GenericCallbackServerContext* context) {
  class Reactor final : public grpc::ServerGenericBidiReactor {
   public:
    void OnDone() override { delete this; }
  };

  auto* reactor = new Reactor;
  reactor->Finish(ToWireStatus(ErrorWithReason(absl::StatusCode::kUnimplemented,
                                               absl::StrCat(context->method(), explanation_),
                                               "METHOD_NOT_SERVED")));
  return reactor;
}

}  // namespace lasp::server
