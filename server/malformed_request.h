// What gRPC itself says to a request that is no message of its method, said as we say errors.
#pragma once

#include <grpcpp/support/server_interceptor.h>

#include <memory>

namespace lasp::server {

// gRPC's callback server ends such a call before our code sees it, with UNIMPLEMENTED and no word:
// a client is then told that the method does not exist. With this interceptor it is told
// INVALID_ARGUMENT, reason MALFORMED_REQUEST, and which message was expected.
std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>
MalformedRequestInterceptor();

}  // namespace lasp::server
