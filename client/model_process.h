// One run of lasp-model, the program that computes with a model on this machine.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "lasp/internal/v1/model_program.pb.h"

namespace lasp::client {

// Told of every reply but an error; its own error ends the program.
using ModelReplyHandler = std::function<absl::Status(const lasp::internal::v1::ModelReply&)>;

// Runs `program` to its end. `quiet`: what it writes beside its replies is dropped. Errors are the
// program's own; FAILED_PRECONDITION where it does not start, INTERNAL where it dies, CANCELLED
// after Ctrl-C. Nothing of it runs any more on return.
absl::Status RunModelProcess(const std::string& program,
                             const lasp::internal::v1::ModelRequest& request, bool quiet,
                             const ModelReplyHandler& on_reply);

}  // namespace lasp::client
