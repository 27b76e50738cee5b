// A service of which no call begins that the access interceptor has refused.
#pragma once

#include <grpcpp/impl/service_type.h>

#include <memory>
#include <string>

namespace lasp::server {

// To be registered in the place of `service`, a generated callback service that outlives it, whose
// full name is `name`. gRPC's interceptors can change how a call ends but not keep its method from
// running; this can, in one place for all methods.
std::unique_ptr<grpc::Service> GuardService(grpc::Service* service, const std::string& name);

}  // namespace lasp::server
