// Who calls, as far as limits go.
#pragma once

#include <grpcpp/server_context.h>

#include <string>

#include "server/access_control.h"
#include "server/caller.h"

namespace lasp::server {

// The name of the caller's token. Without tokens the host that the call came from, its address
// without the port: callers that share a host then share its limits.
std::string PrincipalOf(const grpc::CallbackServerContext& context);

// The same of gRPC's name for a peer, such as `ipv4:192.0.2.1:40000`.
std::string PrincipalOfPeer(const std::string& peer);

// The same for the audit log. `access` null where there are no tokens.
Caller CallerOf(const AccessControl* access, const grpc::CallbackServerContext& context,
                absl::Time now);

}  // namespace lasp::server
