// Whether an agent may connect, judged by its first message alone.
#pragma once

#include "absl/status/status.h"
#include "lasp/v1/worker_service.pb.h"

namespace lasp::server {

// FAILED_PRECONDITION (reason PROTOCOL_VERSION_MISMATCH) for an agent that speaks no
// version of the protocol that the coordinator speaks;
// INVALID_ARGUMENT (INVALID_HELLO) with every violation for one that no agent sends.
absl::Status CheckHello(const lasp::v1::Hello& hello);

}  // namespace lasp::server
