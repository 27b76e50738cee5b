// Errors as they leave the coordinator.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace lasp::server {

// ToGrpcStatus, kept small enough for the trailers a client accepts (8 KiB by default): a long
// message is cut, and of very many field violations the last are left out, the message saying how
// many there were. An answer that does not fit would reach the client without its cause.
grpc::Status ToWireStatus(const absl::Status& status);

}  // namespace lasp::server
