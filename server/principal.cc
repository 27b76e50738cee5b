#include "server/principal.h"

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"

namespace lasp::server {

std::string PrincipalOf(const grpc::CallbackServerContext& context) {
  return PrincipalOfPeer(context.peer());
}

std::string PrincipalOfPeer(const std::string& peer) {
  const bool has_port = absl::StartsWith(peer, "ipv4:") || absl::StartsWith(peer, "ipv6:");
  return has_port ? peer.substr(0, peer.rfind(':')) : peer;
}

}  // namespace lasp::server
