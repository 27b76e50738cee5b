// The request_id of mutations: a UUID the client makes once and keeps over retries.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace lasp::server {

// OK for an empty id or a UUID; INVALID_ARGUMENT otherwise.
absl::Status CheckRequestId(absl::string_view request_id);

}  // namespace lasp::server
