// Where access control and limits meet gRPC: every call of a server is judged here, before its
// method runs.
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
#include "server/call_rate.h"
#include "server/connection_table.h"
#include "server/refusal_log.h"

namespace lasp::server {

// What no caller may exceed. All of it outlives the server.
struct CallLimits {
  CallRate* rate = nullptr;
  ConnectionTable* connections = nullptr;
  // Beyond it RESOURCE_EXHAUSTED with reason MESSAGE_TOO_LARGE.
  int max_message_bytes = 0;
  // Told the flag of a limit that was reached, from any thread.
  std::function<void(const char* flag)> on_refusal;
};

// `access`, null where everybody may do everything, `refusals`, which is told of every call that
// it refuses, and `clock` outlive the server.
std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> AccessInterceptor(
    const AccessControl* access, RefusalLog* refusals, const CallLimits& limits,
    const Clock* clock);

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
