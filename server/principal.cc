#include "server/principal.h"

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "server/access_interceptor.h"

namespace lasp::server {

std::string PrincipalOf(const grpc::CallbackServerContext& context) {
  const std::string token = TokenName(context);
  return token.empty() ? PrincipalOfPeer(context.peer()) : token;
}

std::string PrincipalOfPeer(const std::string& peer) {
  const bool has_port = absl::StartsWith(peer, "ipv4:") || absl::StartsWith(peer, "ipv6:");
  return has_port ? peer.substr(0, peer.rfind(':')) : peer;
}

Caller CallerOf(const AccessControl* access, const grpc::CallbackServerContext& context,
                absl::Time now) {
  Caller caller;
  if (access != nullptr) {
    caller.principal = TokenName(context);
    caller.role = RoleName(GrantOf(access, context, now)->role);
  }
  caller.peer = PrincipalOfPeer(context.peer());
  return caller;
}

}  // namespace lasp::server
