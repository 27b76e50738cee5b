// Where a connection's calls are counted: each as it begins, before it is judged, on every port.
#pragma once

#include <grpcpp/support/server_interceptor.h>

#include <memory>

#include "server/connection_table.h"

namespace lasp::server {

// Tells `connections`, which outlives the server, of each call. To be the first of the
// interceptors; it intercepts nothing.
std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> CallCounter(
    ConnectionTable* connections);

}  // namespace lasp::server
