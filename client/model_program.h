// Which program computes with a model.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "client/model_options.h"
#include "client/model_process.h"
#include "client/session.h"

namespace lasp::client {

// Runs `request`, whose folder is read when ModelReady comes, on the device that the options ask
// for, and gives the device's name, "CPU" or "GPU". Of any device: on a GPU, and on the CPU where
// there is none that takes the model. Errors as RunModelProcess; FAILED_PRECONDITION where there is
// no program for the device.
absl::StatusOr<std::string> ComputeWithModel(const ModelOptions& options,
                                             const lasp::internal::v1::ModelRequest& request,
                                             const ModelReplyHandler& on_reply, Session* session);

}  // namespace lasp::client
