// How unary calls of the callback API end.
#pragma once

#include <grpcpp/server_context.h>

#include <functional>
#include <utility>

#include "absl/status/status.h"
#include "server/task_pool.h"
#include "server/try_again.h"
#include "server/wire_status.h"

namespace lasp::server {

// Ends the call with `status`. The response, if the status is OK, must have been written.
inline grpc::ServerUnaryReactor* Finish(grpc::CallbackServerContext* context,
                                        const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToWireStatus(status));
  return reactor;
}

// Hands the rest of the call, which must end `reactor`, to `pool`; ends it with Overloaded where
// too much waits there.
inline grpc::ServerUnaryReactor* RunBlocking(TaskPool* pool, grpc::ServerUnaryReactor* reactor,
                                             std::function<void()> rest) {
  if (!pool->Run(std::move(rest))) {
    reactor->Finish(ToWireStatus(Overloaded()));
  }
  return reactor;
}

}  // namespace lasp::server
