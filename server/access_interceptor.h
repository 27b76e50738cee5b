// Where access control meets gRPC: every call of a server is judged here, before its method runs.
//
// The interceptor judges; a service guarded by GuardService (guarded_service.h) does not begin a
// call that was refused. What it learnt stands in the call's metadata for those behind it, under
// names that no client can send, and the token stands there no more.
#pragma once

#include <grpcpp/support/server_interceptor.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "proto/rpc/clock.h"
#include "server/access_control.h"
#include "server/refusal_log.h"

namespace lasp::server {

// All outlive the server. `refusals` is told of every call that is refused.
std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> AccessInterceptor(
    const AccessControl* access, RefusalLog* refusals, const Clock* clock);

// Whether the call was refused.
bool WasRefused(const grpc::ServerContextBase& context);

// The name of the caller's token; empty where the coordinator has no tokens.
std::string TokenName(const grpc::ServerContextBase& context);

// What the caller may do. `access` null: everything.
GrantPtr GrantOf(const AccessControl* access, const grpc::ServerContextBase& context,
                 absl::Time now);

// For a stream of this caller: OK as long as its token allows what it allowed when the stream
// began; UNAUTHENTICATED with reason TOKEN_CHANGED from then on. Empty where `access` is null.
std::function<absl::Status()> AccessLease(const AccessControl* access, GrantPtr grant,
                                          const Clock* clock);

}  // namespace lasp::server
