// The answer to calls of methods that a port does not serve.
#pragma once

#include <grpcpp/generic/async_generic_service.h>

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace lasp::server {

// UNIMPLEMENTED with reason METHOD_NOT_SERVED, naming what the port does serve: who calls the API
// on the agents' port finds the way. Thread-safe.
class UnknownMethods final : public grpc::CallbackGenericService {
 public:
  // `flag` is that of the port's address; `services` are the full names of what it serves.
  UnknownMethods(absl::string_view flag, const std::vector<std::string>& services);

  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override;

 private:
  const std::string explanation_;
};

}  // namespace lasp::server
