// absl::Status on the wire: the canonical code and message, with the details in gRPC's
// `grpc-status-details-bin` trailer as google.rpc.Status.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace lasp {

// Adds an ErrorInfo (reason: the code's name) where the status has none, so that every error that
// leaves the server carries one.
grpc::Status ToGrpcStatus(const absl::Status& status);

// The other way, details included.
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace lasp
